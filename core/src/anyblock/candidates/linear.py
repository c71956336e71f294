"""Where a linear map goes that replaces a half of a layer, and which of the half's tensors stay with it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from anyblock.contract.blocks import HALVES, BlockConfig, Half, group_name
from anyblock.errors import UnsupportedModelError
from anyblock.modeling.linear_half import LinearAttention, LinearFFN
from anyblock.modeling.skeleton import build_skeleton
from anyblock.modeling.weights import WeightMap

if TYPE_CHECKING:
    from anyblock.family import ModelFamily

Groups = Mapping[str, Mapping[str, torch.Tensor]]
Place = tuple[int, Half]


@dataclass(frozen=True)
class LinearSite:
    """A half that a linear map can replace.

    Attributes:
        module: path inside the layer of the module that the map replaces, for instance `self_attn`.
        weight: the map's checkpoint name, for instance `model.layers.3.self_attn.linear.weight`.
        kept: checkpoint names of the half's other tensors, its norms.
        dtype: what the map is stored in: the dtype that most of the replaced bytes have.
    """

    module: str
    weight: str
    kept: tuple[str, ...]
    dtype: torch.dtype

    def tensors(self, half: Mapping[str, torch.Tensor], weight: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the half's tensors with the map `[hidden, hidden]` in place of the module's own."""
        return {**{name: half[name] for name in self.kept}, self.weight: weight.to(self.dtype)}


@dataclass(frozen=True)
class LinearMaps:
    """The halves that linear maps can replace, and the maps once they are fitted.

    Attributes:
        sites: by layer and half.
        weights: `[hidden, hidden]`, float32, by layer and half; empty before the calibration.
        key: identifies the weights.
    """

    sites: Mapping[Place, LinearSite] = field(default_factory=dict)
    weights: Mapping[Place, torch.Tensor] = field(default_factory=dict)
    key: str = ""

    def within(self, stream: Sequence[int]) -> LinearMaps:
        """Return the maps of a model that keeps only these channels of the residual stream, as all its other weights."""
        index = torch.tensor(stream, dtype=torch.int64)
        narrow = {place: weight[index][:, index].contiguous() for place, weight in self.weights.items()}
        return LinearMaps(self.sites, narrow, self.key)


def linear_sites(
    family: ModelFamily,
    hf_config: Any,
    block_configs: Sequence[BlockConfig],
    groups: Groups,
    halves: Sequence[str],
) -> dict[Place, LinearSite]:
    """Return every half that a linear map can replace; nothing is loaded, two models are built on the meta device.

    The module is the one that the adapter's no-op replaces. The map lies in the checkpoint where that module's tensors lie.

    Args:
        family: the model's family.
        hf_config: transformers' configuration of the model.
        block_configs: one a layer.
        groups: `{group: {checkpoint name: tensor}}`, also on the meta device.
        halves: `attention`, `ffn` or both.

    Raises:
        UnsupportedModelError: the adapter cannot remove such a half, or the half is not one module between norms.
    """
    wanted: list[Place] = [
        (layer, half)
        for layer, block in enumerate(block_configs)
        for half in HALVES
        if half in halves and not block.half(half).removed
    ]
    for half in sorted({half for _, half in wanted}):
        if not family.supports(f"{half}_no_op"):
            raise UnsupportedModelError(
                f"{family.model_type} cannot have a linear map in place of its {half}: the adapter cannot remove it",
                expected=f"a family with {half}_no_op",
                hint=f"leave out pruning.{half}.linear",
            )
    own = WeightMap(build_skeleton(family, hf_config, block_configs))
    changed = list(block_configs)
    for layer, half in wanted:
        changed[layer] = changed[layer].with_half(half, replace_with_linear=True)
    model = build_skeleton(family, hf_config, changed)
    target = WeightMap(model)
    return {
        (layer, half): _site(family, model, own, target, (layer, half), groups[group_name(layer, half)])
        for layer, half in wanted
    }


def _site(
    family: ModelFamily, model: Any, own: WeightMap, target: WeightMap, place: Place, half: Mapping[str, torch.Tensor]
) -> LinearSite:
    path = family.layer_block_name(place[0])
    maps = [
        name
        for name, module in model.get_submodule(path).named_modules()
        if isinstance(module, LinearAttention | LinearFFN)
    ]
    by_map = {name: [n for n in half if own.target(n)[0].startswith(f"{path}.{name}.")] for name in maps}
    # Both halves of the layer may be maps: this one is where this half's tensors are.
    module, replaced = max(by_map.items(), key=lambda item: len(item[1]))
    goal = f"{path}.{module}.linear.weight"
    weight = next((name for name in _names(replaced) if target.target(name) == (goal, False)), None)
    if weight is None:
        raise UnsupportedModelError(
            f"{family.model_type}: no checkpoint name leads to {goal}",
            expected="a module whose tensors share a prefix in the checkpoint",
            hint=f"leave out pruning.{place[1]}.linear",
        )
    sizes: dict[torch.dtype, int] = {}
    for name in replaced:
        dtype = half[name].dtype
        if dtype.is_floating_point and dtype.itemsize > 1:
            sizes[dtype] = sizes.get(dtype, 0) + half[name].numel() * dtype.itemsize
    dtype = max(sizes, key=lambda found: sizes[found]) if sizes else model.dtype
    return LinearSite(module, weight, tuple(name for name in half if name not in replaced), dtype)


def _names(replaced: Sequence[str]) -> list[str]:
    """Return the names that the map may have: below the prefix that the replaced tensors share, or one above it."""
    paths = [name.split(".")[:-1] for name in replaced]
    shared = [parts[0] for parts in itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))]
    return [".".join([*shared[:end], "linear.weight"]) for end in range(len(shared), 0, -1)]
