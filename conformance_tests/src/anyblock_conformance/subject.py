"""What checks are run on: a family with a checkpoint, and everything that is made of it, made once."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar
from weakref import WeakValueDictionary

import torch
from anyblock.checkpoint.config import read_config
from anyblock.checkpoint.config_view import config_view
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.contract.blocks import BlockConfig, block_configs_from_json
from anyblock.conversion.convert import convert_with
from anyblock.modeling.agree import agreed_blocks, of_this_architecture
from anyblock.modeling.heterogeneous import heterogeneous
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.modeling.load import load_model
from anyblock.modeling.skeleton import build_skeleton, load_hf_config, model_class, shapes_of
from anyblock.modeling.weights import WeightMap, owners_of, quiet_loading

from anyblock_conformance.expect import close
from anyblock_conformance.headers import Shape, source_shapes
from anyblock_conformance.rounding import tolerance_of
from anyblock_conformance.tiny import random_tokens, save_tiny

if TYPE_CHECKING:
    from anyblock.contract.pruning_mixin import PruningMixIn
    from anyblock.contract.residual_pruning import ResidualPruning
    from anyblock.family import ModelFamily

T = TypeVar("T")
Scope = Literal["tiny", "weights", "headers"]
"""What there is to check: the adapter on its tiny model, a whole checkpoint, or a checkpoint's config and headers."""
_FEW_LAYERS: Final = 4
RESIDENT: Final = 2
"""Layers of a whole checkpoint that hold weights at once."""
SMALL: Final = 16 << 20
"""Bytes of a whole checkpoint below which all of its layers do."""


class Subject:
    """A family and a checkpoint. What is derived from it is made when first asked for, and kept.

    Models of a whole checkpoint are not kept: of them one at a time is meant to be in memory. What they compute is compared in
    float32, layer by layer, whatever the checkpoint's dtype: half types round so coarsely that faults would pass for rounding,
    and rounding for faults.

    Whoever changes a model takes a copy of it.

    Args:
        family: the adapter under test.
        folder: an existing directory for whatever is written.
        scope: how much of a checkpoint there is.
        source: the checkpoint; None has the tiny one written.
        shapes: its tensors, where the source has only a configuration.
    """

    def __init__(
        self,
        family: ModelFamily,
        folder: Path,
        *,
        scope: Scope = "tiny",
        source: Path | None = None,
        shapes: Mapping[str, Shape] | None = None,
    ) -> None:
        self.family = family
        self.scope = scope
        self.folder = folder
        self._source = source
        self._shapes = shapes
        self._memo: dict[str, Any] = {}
        self._groups: dict[str, list[str]] = {}
        self._living: WeakValueDictionary[str, Any] = WeakValueDictionary()

    def memo(self, name: str, make: Callable[[], T]) -> T:
        """Return what `make` gave when this name was first asked for."""
        if name not in self._memo:
            self._memo[name] = make()
        return self._memo[name]  # type: ignore[no-any-return]

    def _model(self, name: str, make: Callable[[], T]) -> T:
        """Return what `make` gave: for good where it is tiny, and otherwise while somebody holds it."""
        if self.scope == "tiny":
            return self.memo(name, make)
        found = self._living.get(name)
        if found is None:
            self.make_room()
            found = self._living[name] = make()
        return found

    def make_room(self) -> None:
        """Free models that are used no longer, before another one is loaded; of tiny ones many fit."""
        if self.scope != "tiny":
            gc.collect()  # models are in cycles

    # -- the checkpoint ---------------------------------------------------------------------------------------------

    @cached_property
    def source(self) -> Path:
        """The Hugging Face checkpoint; the tiny one is written here."""
        if self._source is not None:
            return self._source
        return save_tiny(self.family.conformance_config(), self.folder / "source")

    @cached_property
    def tensors(self) -> dict[str, Shape]:
        """Shape and dtype of every tensor of the checkpoint, by its name there."""
        return source_shapes(self.source) if self._shapes is None else dict(self._shapes)

    @cached_property
    def names(self) -> dict[str, Shape]:
        """Shape and dtype of every tensor as `convert` will store it, by its new name; computed ones have no shape."""
        computed = self.family.dequantize(list(self.tensors), self.view)
        used = {name for sources in computed.values() for name in sources}
        kept = {
            self.family.convert_weight_name(name): shape for name, shape in self.tensors.items() if name not in used
        }
        return {**kept, **dict.fromkeys(computed, Shape("", None))}

    @cached_property
    def raw_config(self) -> dict[str, Any]:
        """The content of `config.json`."""
        return read_config(self.source)

    @cached_property
    def view(self) -> Any:
        """The read-only view of `config.json` that hooks see during a conversion."""
        return config_view(self.source)

    @cached_property
    def config(self) -> Any:
        """The Hugging Face configuration."""
        return load_hf_config(self.source)

    @cached_property
    def text_config(self) -> Any:
        """The language model's part of the configuration."""
        return self.family.language_model_config(self.config)

    @cached_property
    def blocks(self) -> list[BlockConfig]:
        """The checkpoint's block configs: its own, or what the adapter makes of the configuration.

        Its own are taken as everything reads them: where they contradict the tensors, with the tensors' sizes.
        """
        if "block_configs" in self.raw_config:
            stated = block_configs_from_json(self.raw_config["block_configs"])
            sizes = {name: shape.sizes for name, shape in self.names.items() if shape.sizes is not None}
            tensors = {name: torch.empty(own, device="meta") for name, own in sizes.items()}
            stated = of_this_architecture(self.family, self.config, stated, str(self.source))
            return agreed_blocks(self.family, self.config, stated, tensors)
        return self.family.create_block_configs(self.config)

    @property
    def num_layers(self) -> int:
        """How many decoder layers there are."""
        return len(self.blocks)

    @cached_property
    def layers(self) -> list[int]:
        """The layers that are tried: all of a tiny model, and a few of a large one."""
        if self.num_layers <= _FEW_LAYERS or self.scope == "tiny":
            return list(range(self.num_layers))
        return sorted({0, 1, self.num_layers // 2, self.num_layers - 1})

    @cached_property
    def patterns(self) -> dict[str, Any]:
        """The adapter's patterns of tensor names by group."""
        return self.family.layer_name_predicates(self.num_layers, self.view)

    def groups_of(self, name: str) -> list[str]:
        """Return every group that takes a tensor name."""
        if name not in self._groups:
            self._groups[name] = [group for group, pattern in self.patterns.items() if pattern.fullmatch(name)]
        return self._groups[name]

    @cached_property
    def mixins(self) -> dict[str, PruningMixIn]:
        """The adapter's pruning mixins by kind."""
        return self.family.pruning_mixins()

    @cached_property
    def stream(self) -> ResidualPruning | None:
        """How the adapter prunes the residual stream."""
        return self.family.residual_stream()

    # -- models -----------------------------------------------------------------------------------------------------

    @cached_property
    def converted(self) -> SubblockCheckpoint:
        """The checkpoint as a subblock checkpoint."""
        return SubblockCheckpoint.open(convert_with(self.family, self.source, self.folder / "converted"))

    @property
    def stock(self) -> Any:
        """The model as transformers loads it, with no part of AnyBlock involved unless the layers differ."""
        return self._model("stock", self._stock)

    def _stock(self) -> Any:
        if "block_configs" in self.raw_config:
            with heterogeneous(self.family, self.blocks):
                return stock_model(self.source)
        return stock_model(self.source)

    @property
    def teacher(self) -> Any:
        """The converted checkpoint as AnyBlock loads it."""
        return self._model("teacher", lambda: load_model(self.converted.path, family=self.family))

    @property
    def engine(self) -> LayerwiseModel:
        """The converted checkpoint, ready to run layer by layer; of a whole one in float32, with few layers in memory."""
        return self._model("engine", lambda: self.layerwise(self.converted))

    @property
    def reference(self) -> Any:
        """The model that children are compared with: the stock one, of a whole checkpoint as `engine` runs it.

        That the latter is the stock model is shown by `convert.bit-for-bit` and `build.layerwise`.
        """
        return self.stock if self.scope == "tiny" else self.engine.model

    def layerwise(self, checkpoint: SubblockCheckpoint, *, resident: int | None = RESIDENT) -> LayerwiseModel:
        """Return a checkpoint of this family, ready to run layer by layer; see `engine`.

        Args:
            checkpoint: the checkpoint.
            resident: how many layers of a whole one hold weights at once; None for all, where it runs many times.
        """
        if self.scope == "tiny":
            return LayerwiseModel(checkpoint, self.family)
        if self._is_small:
            return LayerwiseModel(checkpoint, self.family, dtype=torch.float32)
        self.make_room()
        return LayerwiseModel(checkpoint, self.family, dtype=torch.float32, max_resident=resident)

    @cached_property
    def _is_small(self) -> bool:
        """Whether a few models of the checkpoint together take less than the libraries do, so that layers are not read anew."""
        return sum(self.converted.file(group).stat().st_size for group in self.converted.groups) < SMALL

    def load(self, group: str) -> dict[str, torch.Tensor]:
        """Return the tensors of one group of the converted checkpoint, in the dtype in which children are compared."""
        return self.converted.load(group, dtype=None if self.scope == "tiny" else torch.float32)

    @cached_property
    def unloaded(self) -> Any:
        """The stock model without weights, on the meta device."""
        if "block_configs" in self.raw_config:
            return build_skeleton(self.family, self.config, self.blocks)
        return self._stock_shapes

    @cached_property
    def stock_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter and stored buffer as transformers builds the model, by module name."""
        with torch.device("meta"):
            model = model_class(self.config)._from_config(copy.deepcopy(self.config))
        return shapes_of(model)

    @cached_property
    def module_names(self) -> dict[str, str]:
        """The parameter or buffer that each stored tensor becomes, or is a part of, by the tensor's name."""
        weights = WeightMap(self._stock_shapes)
        return {name: weights.target(name)[0] for name in self.names}

    @cached_property
    def module_owners(self) -> dict[str, list[str]]:
        """The modules that have what each stored tensor becomes, tied ones included, by the tensor's name."""
        owners = owners_of(self._stock_shapes)
        return {name: owners.get(module, [module.rpartition(".")[0]]) for name, module in self.module_names.items()}

    @cached_property
    def _stock_shapes(self) -> Any:
        with torch.device("meta"):
            return model_class(self.config)._from_config(copy.deepcopy(self.config))

    @cached_property
    def own_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter and stored buffer of the model that AnyBlock builds from `blocks`."""
        return self.shapes(self.blocks)

    def shapes(self, blocks: Sequence[BlockConfig]) -> dict[str, tuple[int, ...]]:
        """Return the same of the heterogeneous model with these blocks."""
        return shapes_of(build_skeleton(self.family, self.config, blocks))

    @cached_property
    def ids(self) -> torch.Tensor:
        """Token ids `[2, 12]`."""
        return self.tokens(2, 12)

    def tokens(self, batch: int, length: int, *, seed: int = 0) -> torch.Tensor:
        """Return random token ids `[batch, length]`."""
        return random_tokens(int(self.text_config.vocab_size), batch, length, seed)

    @cached_property
    def logits(self) -> torch.Tensor:
        """The reference's logits on `ids`."""
        return logits(self.reference, self.ids)

    @cached_property
    def tolerance(self) -> float:
        """How far logits may be from those of the reference, as a share of the largest; see `tolerance_of`."""
        model = copy.deepcopy(self.stock) if self.scope == "tiny" else self.reference
        return tolerance_of(model, self.ids)

    def close(self, found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
        """Fail unless two tensors of logits agree up to rounding."""
        close(found, expected, what, tolerance=self.tolerance)

    @cached_property
    def alone(self) -> Subject:
        """The family's own tiny model, which shows what the adapter does whatever the checkpoint is like."""
        return Subject(self.family, self.folder / "alone")

    # -- variants ---------------------------------------------------------------------------------------------------

    @cached_property
    def tied(self) -> Subject | None:
        """The same with input and output embedding tied; None for a family that cannot tie them."""
        config = self.family.conformance_config()
        config.tie_word_embeddings = True
        folder = self.folder / "tied"
        model = stock_model(save_tiny(config, folder / "source"))
        head = model.get_output_embeddings()
        if head is None or head.weight is not model.get_input_embeddings().weight:
            return None
        return Subject(self.family, folder, source=folder / "source")

    def place(self, name: str) -> Path:
        """Return a path inside the folder at which nothing is yet."""
        return next(path for path in (self.folder / f"{name}-{number}" for number in count()) if not path.exists())


def stock_model(path: Path) -> Any:
    """Load a local checkpoint with transformers alone, in its own dtype, in eval mode."""
    config = load_hf_config(path)
    with quiet_loading():
        return model_class(config).from_pretrained(path, config=config, dtype="auto", local_files_only=True).eval()


@torch.no_grad()
def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Return a model's logits `[batch, length, vocabulary]`, computed without a cache."""
    return model(input_ids=ids, use_cache=False).logits  # type: ignore[no-any-return]
