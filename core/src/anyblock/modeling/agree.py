"""Block configs that contradict a checkpoint's tensors: the tensors are believed.

ModelOpt writes 8192, its default, for the shared expert of a model that it does not know the width of, and for one that the
model does not have. Other writers err otherwise. Which size a tensor has is not for `config.json` to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from functools import partial
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, Final

import torch

from anyblock.contract.blocks import HALVES, AttentionConfig, BlockConfig, FFNConfig
from anyblock.errors import CheckpointError, ConfigError, InputError
from anyblock.modeling.skeleton import build_skeleton, shapes_of
from anyblock.modeling.weights import WeightMap

if TYPE_CHECKING:
    from anyblock.family import ModelFamily

Field = tuple[str, ...]
"""Where a size stands in a block config, for instance `("ffn", "moe", "num_local_experts")`."""
_Shapes = Mapping[str, tuple[int, ...]]
_UNSEEN: Final = ("num_experts_per_tok",)  # sizes that no tensor shows
_MOST: Final = 64  # combinations of sizes that are tried for a layer
_SHARED: Final = ("ffn", "moe", "shared_expert_intermediate_dim")


def agreed_blocks(
    family: ModelFamily, config: Any, block_configs: Sequence[BlockConfig], tensors: Mapping[str, torch.Tensor]
) -> list[BlockConfig]:
    """Return block configs that do not fit a checkpoint's tensors, with the sizes that these have where they decide them.

    Sizes of a layer change where exactly one choice of those that its tensors ask for fits all of them.

    Args:
        family: the model's family.
        config: its Hugging Face configuration.
        block_configs: one per layer.
        tensors: the tensors of the checkpoint by name, on the meta device.
    """
    layers = _Layers(family, config, block_configs, tensors)
    return layers.settled() if layers.wrong else list(block_configs)


def of_this_architecture(
    family: ModelFamily, config: Any, block_configs: Sequence[BlockConfig], where: str
) -> list[BlockConfig]:
    """Return block configs without shared experts that the architecture does not have.

    Args:
        family: the model's family.
        config: its Hugging Face configuration.
        block_configs: one per layer, as `config.json` states them.
        where: names the checkpoint.

    Raises:
        CheckpointError: a half is of another kind than in this architecture.
    """
    blocks = list(block_configs)
    for index, (block, own) in enumerate(zip(block_configs, family.create_block_configs(config), strict=False)):
        for half in HALVES:
            found, expected = _kind(block.half(half)), _kind(own.half(half))
            if found and expected and found != expected:
                raise CheckpointError(
                    f"{where}: block_configs[{index}].{half} says {found}, and in this model it is {expected}",
                    expected="block configs of this model",
                )
        if _SHARED in dict(_sizes(block)) and _SHARED not in dict(_sizes(own)):
            blocks[index] = _changed(block, {_SHARED: None})
    return blocks


def said(stated: Sequence[BlockConfig], blocks: Sequence[BlockConfig], where: str) -> list[str]:
    """Return what a user should hear of sizes that are others than `config.json` states: a sentence, or nothing.

    Args:
        stated: the block configs there.
        blocks: the same with the sizes of the tensors.
        where: names the checkpoint.
    """
    layers: dict[str, list[str]] = {}
    for index, (old, new) in enumerate(zip(stated, blocks, strict=True)):
        sizes = dict(_sizes(new))
        for field, size in _sizes(old):
            if sizes.get(field) != size:
                change = f"{'.'.join(field)} is {sizes.get(field, 'absent')} and not {size}"
                layers.setdefault(change, []).append(str(index))
    changes = [f"{change} in layer{'s' * (len(found) > 1)} {', '.join(found)}" for change, found in layers.items()]
    if not changes:
        return []
    return [f"{where}: block_configs contradict the tensors, and the tensors are believed: {'; '.join(changes)}"]


class _Layers:
    """The layers of a checkpoint; of those that are alike, one is looked at.

    Attributes:
        blocks: the block configs as they are stated.
        wrong: the layers, one of each sort, whose tensors do not fit them.
    """

    def __init__(
        self, family: ModelFamily, config: Any, blocks: Sequence[BlockConfig], tensors: Mapping[str, torch.Tensor]
    ) -> None:
        self._build = partial(build_skeleton, family, config)
        self._paths = [f"{family.layer_block_name(index)}." for index in range(len(blocks))]
        self._own: list[dict[str, torch.Tensor]] = [{} for _ in blocks]
        self.blocks = blocks
        model = self._build(blocks)
        weights = WeightMap(model)
        form: list[list[tuple[Any, ...]]] = [[] for _ in blocks]
        for name, tensor in tensors.items():
            target = weights.target(name)[0]
            for index, own in self._local(target):
                self._own[index][name] = tensor
                form[index].append((own, "stored", *tensor.shape))
        for name, shape in shapes_of(model).items():
            for index, own in self._local(name):
                form[index].append((own, "built", *shape))
        first: dict[str, int] = {}
        self._like = [first.setdefault(repr((block, sorted(form[index]))), index) for index, block in enumerate(blocks)]
        self._seen = self._look(model, first.values())
        self.wrong = [index for index, (stored, built) in self._seen.items() if _differ(stored, built)]

    def _local(self, name: str) -> Iterator[tuple[int, str]]:
        """Yield the layer that has a parameter or buffer, and its name there; nothing outside of the layers."""
        for index, path in enumerate(self._paths):
            if name.startswith(path):
                yield index, name.removeprefix(path)

    def _look(self, model: Any, layers: Iterable[int]) -> dict[int, tuple[_Shapes, _Shapes]]:
        """Return, by layer, the shapes in which the checkpoint's tensors arrive in a model, and those that it has.

        In some families the form in which they arrive depends on the sizes that the model has (Qwen3-VL).
        """
        weights, own = WeightMap(model), shapes_of(model)
        return {index: (weights.shapes(self._own[index]), own) for index in layers}

    def settled(self) -> list[BlockConfig]:
        """Return the blocks with other sizes in wrong layers, and in those like them, where the tensors decide them."""
        fitting: dict[int, list[BlockConfig]] = {index: [] for index in self.wrong}
        tried = {index: self._possible(index, choices) for index, choices in self._choices().items()}
        for number in range(max(map(len, tried.values()))):
            trial = list(self.blocks)
            for index, possible in tried.items():
                trial[index] = possible[min(number, len(possible) - 1)]
            with suppress(InputError):
                for index, (stored, built) in self._look(self._build(trial), self.wrong).items():
                    if not _differ(stored, built) and trial[index] not in fitting[index]:
                        fitting[index].append(trial[index])
        settled = list(self.blocks)
        for index, found in fitting.items():
            if len(found) == 1:
                settled[index] = found[0]
        return [settled[like] for like in self._like]

    def _choices(self) -> dict[int, dict[Field, list[int]]]:
        """Return, for each wrong layer, the sizes that its block config and its tensors give each field.

        What depends on a size is what changes in the model when it is doubled.
        """
        sizes = {index: dict(_sizes(self.blocks[index])) for index in self.wrong}
        choices = {index: {field: [size] for field, size in own.items()} for index, own in sizes.items()}
        for field in dict.fromkeys(field for own in sizes.values() for field in own):
            having = [index for index in self.wrong if field in sizes[index]]
            trial = list(self.blocks)
            for index in having:
                trial[index] = _changed(trial[index], {field: 2 * sizes[index][field]})
            with suppress(InputError):
                doubled = shapes_of(self._build(trial))
                for index in having:
                    asked = _asked(*self._seen[index], doubled, sizes[index][field])
                    choices[index][field] += sorted(asked - {sizes[index][field]})
        return choices

    def _possible(self, index: int, choices: Mapping[Field, Sequence[int]]) -> list[BlockConfig]:
        """Return the layer's block with every combination of these sizes; as it is where these are too many."""
        if prod(map(len, choices.values())) > _MOST:
            return [self.blocks[index]]
        possible = []
        for sizes in product(*choices.values()):
            with suppress(ConfigError):  # sizes that no layer can have together
                possible.append(_changed(self.blocks[index], dict(zip(choices, sizes, strict=True))))
        return possible


def _differ(stored: _Shapes, built: _Shapes) -> bool:
    return any(built.get(name, shape) != shape for name, shape in stored.items())


def _asked(stored: _Shapes, built: _Shapes, doubled: _Shapes, size: int) -> set[int]:
    """Return the sizes that the stored tensors ask for in the dimensions that depend on a size.

    Args:
        stored: the shapes in the checkpoint.
        built: those of the model with this size.
        doubled: those of the model with twice this size.
        size: the size.
    """
    found: set[int] = set()
    for name, shape in stored.items():
        before, after = built.get(name, ()), doubled.get(name, ())
        if not len(shape) == len(before) == len(after):
            continue
        for here, once, twice in zip(shape, before, after, strict=True):
            if twice != once:
                units, rest = divmod((here - once) * size, twice - once)
                found |= {size + units} if not rest and size + units > 0 else set()
    return found


def _kind(half: AttentionConfig | FFNConfig) -> str | None:
    """Return what a half is that no size tells; None of one that is gone."""
    if half.removed:
        return None
    if isinstance(half, AttentionConfig):
        return "attention" if half.mamba is None else "a Mamba"
    return "dense" if half.moe is None else "experts"


def _sizes(part: Any, place: Field = ()) -> Iterator[tuple[Field, int]]:
    """Yield every size in a block config with its place."""
    for field in fields(part):
        value = getattr(part, field.name)
        if is_dataclass(value):
            yield from _sizes(value, (*place, field.name))
        elif type(value) is int and field.name not in _UNSEEN:
            yield (*place, field.name), value


def _changed(part: Any, values: Mapping[Field, int | None]) -> Any:
    """Return a block config, or a part of one, with other sizes at these places."""
    for (name, *rest), value in values.items():
        part = replace(part, **{name: _changed(getattr(part, name), {tuple(rest): value}) if rest else value})
    return part
