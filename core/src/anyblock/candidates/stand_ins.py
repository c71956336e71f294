"""Finding where a linear map goes that replaces a half of a layer."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from anyblock.contract.blocks import BlockConfig, Half, group_name
from anyblock.contract.candidate_source import StandIn
from anyblock.errors import CheckpointError, UnsupportedModelError
from anyblock.modeling.linear_half import LinearAttention, LinearFFN
from anyblock.modeling.skeleton import build_skeleton
from anyblock.modeling.weights import WeightMap

if TYPE_CHECKING:
    from anyblock.family import ModelFamily

Groups = Mapping[str, Mapping[str, torch.Tensor]]


def stand_ins(
    family: ModelFamily, hf_config: Any, block_configs: Sequence[BlockConfig], groups: Groups, half: Half
) -> dict[int, StandIn]:
    """Return by layer where linear maps go; nothing is loaded, two models are built on the meta device.

    The module is the one that the adapter's no-op replaces. The map lies in the checkpoint where that module's tensors lie.

    Args:
        family: the model's family.
        hf_config: transformers' configuration of the model.
        block_configs: one a layer.
        groups: `{group: {checkpoint name: tensor}}`, also on the meta device.
        half: `attention` or `ffn`; layers without it are left out.

    Raises:
        UnsupportedModelError: the adapter cannot remove such a half, or the half is not one module between norms.
    """
    if not family.supports(f"{half}_no_op"):
        raise UnsupportedModelError(
            f"{family.model_type} cannot have a linear map in place of its {half}: the adapter cannot remove it",
            expected=f"a family with {half}_no_op",
            hint=f"leave out pruning.{half}.linear",
        )
    layers = [layer for layer, block in enumerate(block_configs) if not block.half(half).removed]
    own = WeightMap(build_skeleton(family, hf_config, block_configs))
    changed = list(block_configs)
    for layer in layers:
        changed[layer] = changed[layer].with_half(half, replace_with_linear=True)
    try:
        model = build_skeleton(family, hf_config, changed)
    except CheckpointError as error:  # the model looks into the module that is gone (Gemma 4)
        raise UnsupportedModelError(
            f"{family.model_type} cannot have a linear map in place of this half: {error.what}",
            hint=f"leave out pruning.{half}.linear",
        ) from error
    target = WeightMap(model)
    return {layer: _stand_in(family, model, own, target, layer, groups[group_name(layer, half)]) for layer in layers}


def _stand_in(
    family: ModelFamily, model: Any, own: WeightMap, target: WeightMap, layer: int, half: Mapping[str, torch.Tensor]
) -> StandIn:
    path = family.layer_block_name(layer)
    maps = [
        name
        for name, module in model.get_submodule(path).named_modules()
        if isinstance(module, LinearAttention | LinearFFN)
    ]
    by_map = {name: [n for n in half if own.target(n)[0].startswith(f"{path}.{name}.")] for name in maps}
    # The teacher's other half may be a map as well: this one is where this half's tensors are.
    module, replaced = max(by_map.items(), key=lambda item: len(item[1]))
    goal = f"{path}.{module}.linear.weight"
    weight = next((name for name in _names(replaced) if target.target(name) == (goal, False)), None)
    if weight is None:
        raise UnsupportedModelError(
            f"{family.model_type}: no checkpoint name leads to {goal}",
            expected="a module whose tensors share a prefix in the checkpoint",
            hint="leave out pruning.attention.linear and pruning.ffn.linear",
        )
    sizes: dict[torch.dtype, int] = {}
    for name in replaced:
        dtype = half[name].dtype
        if dtype.is_floating_point and dtype.itemsize > 1:
            sizes[dtype] = sizes.get(dtype, 0) + half[name].numel() * dtype.itemsize
    dtype = max(sizes, key=lambda found: sizes[found]) if sizes else model.dtype
    return StandIn(module, weight, tuple(name for name in half if name not in replaced), dtype)


def _names(replaced: Sequence[str]) -> list[str]:
    """Return the names that the map may have: below the prefix that the replaced tensors share, or one above it."""
    paths = [name.split(".")[:-1] for name in replaced]
    shared = [parts[0] for parts in itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))]
    return [".".join([*shared[:end], "linear.weight"]) for end in range(len(shared), 0, -1)]
