"""`gguf`: one file that llama.cpp runs."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from anyblock.contract.cache_spec import head_width
from anyblock.contract.export_format import Child, ExportFormat, linear_obstacles
from anyblock.contract.storage_type import chosen_types

from anyblock_gguf.settings import GgufSettings
from anyblock_gguf.tokenizer import add_tokenizer, tokenizer_obstacles

if TYPE_CHECKING:
    import torch

    from anyblock_gguf.architecture import Architecture

FILE_TYPES: Final = {
    "f32": "ALL_F32", "q6_k": "MOSTLY_Q6_K", "q5_k": "MOSTLY_Q5_K_S", "q4_k": "MOSTLY_Q4_K_S", "q3_k": "MOSTLY_Q3_K_S",
    "q2_k": "MOSTLY_Q2_K_S", "mxfp4": "MOSTLY_MXFP4_MOE",
}  # fmt: skip
"""llama.cpp's name for a file whose matrices mostly have a type, where it is not MOSTLY_ and that type."""


class GgufFormat(ExportFormat):
    """One GGUF file in the architecture of llama.cpp that computes what the child computes.

    Vectors are F32, and so are routers and what llama.cpp reads in no other type. Layers that the child has lost as a whole
    are left out of the file.
    """

    summary: ClassVar[str] = "one file for llama.cpp; --set type=q4_k and others quantize it"
    aliases: ClassVar[tuple[str, ...]] = ("llama.cpp",)
    width_multiples: ClassVar[tuple[int, ...]] = (256, 32)  # the blocks of K-quants, and those of the other types
    settings = GgufSettings

    def obstacles(self, child: Child) -> list[str]:
        """See `ExportFormat.obstacles`: a family, sizes and a tokenizer that llama.cpp has."""
        if found := linear_obstacles(child):
            return found
        architecture = architecture_of(child)
        if isinstance(architecture, list):
            return architecture
        if not (found := architecture.obstacles()):
            try:
                plan = self._plan(child, architecture)
            except KeyError as error:
                found.append(f"it has the tensor {error.args[0]}, which llama.cpp's {architecture.name} does not have")
            else:
                found += plan.changed if self.settings_given.strict else []
        return found + tokenizer_obstacles(child.path, architecture.config.vocab_size)

    def remarks(self, child: Child) -> list[str]:
        """See `ExportFormat.remarks`: which matrices the usual types would store larger, for the length of their rows."""
        from gguf import GGMLQuantizationType as Kind

        from anyblock_gguf.storage import allowed_kind
        from anyblock_gguf.types import USUAL

        architecture = architecture_of(child)
        assert not isinstance(architecture, list)
        plan = self._plan(child, architecture, GgufSettings.model_validate({"type": "f16"}))
        rows = Counter(plan.shapes[name][-1] for name, kind in plan.kinds.items() if kind == Kind.F16)
        found = []
        for columns, count in rows.items():
            larger = {name: allowed_kind(Kind[name.upper()], columns).name.lower() for name in USUAL}
            if said := ", ".join(f"{own} for {name}" for name, own in larger.items() if own != name):
                found.append(f"{count} of {rows.total()} matrices have rows of {columns}: {said}")
        return found or ["the rows of all matrices allow every storage type"]

    def write(self, child: Child, directory: Path) -> None:
        """See `ExportFormat.write`."""
        import gguf
        import numpy as np

        from anyblock_gguf.importance import mean_squared_inputs
        from anyblock_gguf.library import library
        from anyblock_gguf.storage import IN_PYTHON, stored, stored_bytes

        settings = self.settings_given
        architecture = architecture_of(child)
        assert not isinstance(architecture, list)
        plan = self._plan(child, architecture)
        if any(kind not in IN_PYTHON for kind in plan.kinds.values()):
            library()  # before the work begins
        importance = mean_squared_inputs(child, architecture, settings) if settings.importance else {}
        path = directory / f"model-{settings.type or plan.name}.gguf"
        writer = gguf.GGUFWriter(path, architecture.name)
        most = settings.type or plan.most
        writer.add_file_type(gguf.LlamaFileType[FILE_TYPES.get(most, f"MOSTLY_{most.upper()}")])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        architecture.metadata(writer)
        add_tokenizer(writer, child.path, architecture.config.vocab_size)
        for name, shape in plan.shapes.items():
            kind = plan.kinds[name]
            writer.add_tensor_info(name, shape, np.dtype(np.float32), stored_bytes(kind, shape), kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, tensor in architecture.tensors(child.model_groups, child.load):
            writer.write_tensor_data(stored(name, tensor, plan.kinds[name], importance))
        writer.close()
        if plan.changed:
            kept = f"; {path.name} has {path.stat().st_size:,} bytes"
            warnings.warn("; ".join(plan.changed) + kept, stacklevel=2)

    def _plan(self, child: Child, architecture: Architecture, settings: GgufSettings | None = None) -> Plan:
        import torch

        def shapes(group: str) -> Mapping[str, torch.Tensor]:
            return {name: torch.empty(child.shape(name), device="meta") for name in child.groups[group]}

        return Plan(child, architecture, shapes, settings or self.settings_given)


class Plan:
    """The tensors of a file.

    Attributes:
        shapes, kinds: by name, in the file's order.
        most: the type that takes the most bytes.
        name: what the types are called together where the settings do not say it.
        searched: the types that the search chose, by the child's groups; empty where the settings have one for all.
        changed: sentences on the tensors whose rows do not allow the type that the settings give them. What the search chose
            was counted with what it becomes.
    """

    def __init__(
        self,
        child: Child,
        architecture: Architecture,
        load: Callable[[str], Mapping[str, torch.Tensor]],
        settings: GgufSettings,
    ) -> None:
        from anyblock_gguf.storage import allowed_kind, stored_bytes, wanted_kind

        self.searched = {} if settings.type else chosen_types(child.config, "gguf")
        group = ""

        def groups() -> Iterator[str]:
            """Yield the child's groups, and remember which one is being read."""
            nonlocal group
            for own in (*child.model_groups, ""):
                group = own
                if own:  # what the architecture adds after them is zeros
                    yield own

        self.shapes: dict[str, tuple[int, ...]] = {}
        self.kinds: dict[str, Any] = {}
        other: dict[tuple[str, str, int], list[str]] = {}
        for name, tensor in architecture.tensors(groups(), load):
            own = self.searched.get(group)
            wanted = wanted_kind(name, tensor.dim(), settings, own or ("q8_0" if self.searched else "f16"))
            kind = allowed_kind(wanted, tensor.shape[-1])
            self.shapes[name], self.kinds[name] = tuple(tensor.shape), kind
            if kind != wanted and wanted.name.lower() != own:
                other.setdefault((wanted.name, kind.name, tensor.shape[-1]), []).append(name)
        self.changed = [
            f"{len(names)} tensors with rows of {columns} are {kind}, since {wanted} does not divide them: {', '.join(names)}"
            for (wanted, kind, columns), names in other.items()
        ]
        sizes: dict[str, int] = {}
        for name, shape in self.shapes.items():
            if len(shape) > 1:
                own = self.kinds[name].name.lower()
                sizes[own] = sizes.get(own, 0) + stored_bytes(self.kinds[name], shape)
        self.most = max(sizes, key=sizes.__getitem__)
        self.name = "searched" if self.searched else "f16"


def architecture_of(child: Child) -> Architecture | list[str]:
    """Return the architecture that a child is written in, or why there is none for its family or its sizes."""
    from anyblock_gguf.families import families

    model_type = child.config["model_type"]
    known = families()
    if model_type not in known:
        return [f"its model_type is {model_type}; models of {', '.join(known)} can be expressed"]
    differences = child.layer_differences()
    places = [
        index for index, block in enumerate(child.block_configs) if not (block.attention.no_op and block.ffn.no_op)
    ]
    if not places:
        return ["no layer is left"]
    base = child.view.resolve()
    base.head_dim = head_width(base)  # of which single layers have other multiples
    configs = []
    for place in places:
        config = copy.deepcopy(base)
        for name, value in differences[place].items():
            if name != "skip":
                setattr(config, name, value)
        configs.append(config)
    blocks = [child.block_configs[place] for place in places]
    kept = [differences[place] for place in places]
    found: list[str] = []
    for kind in known[model_type]:
        architecture = kind(configs, places, blocks)
        if not (found := architecture.uneven(kept)):
            return architecture
    return found
