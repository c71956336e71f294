"""The scope within which a stock model class builds every layer from its own block config."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

from anyblock.contract.blocks import BlockConfig
from anyblock.errors import UnsupportedModelError
from anyblock.modeling.layer_config import per_layer_differences
from anyblock.modeling.layer_scope import layer_scope
from anyblock.modeling.linear_half import replace_by_linear
from anyblock.modeling.no_op import INDEX_NAMES

if TYPE_CHECKING:
    from anyblock.family import ModelFamily


@contextmanager
def heterogeneous(family: ModelFamily, block_configs: Sequence[BlockConfig]) -> Iterator[None]:
    """Within this scope, and in this thread only, the family's decoder layers are built from `block_configs`.

    Each layer's constructor receives a config of its own (`block_config_to_layer_overrides`), and a half that is a no-op
    is removed right after construction, or a linear map put in its place. The layer's index is read from the
    constructor's arguments, or layers are counted in the order in which they are built. Nothing stays patched afterwards.

    Raises:
        UnsupportedModelError: a layer has an index beyond `block_configs`, or fewer layers are counted; or a half cannot
            be replaced by a linear map.
    """
    overrides = [family.block_config_to_layer_overrides(block) for block in block_configs]

    def plan(
        cls: type[nn.Module], arguments: Mapping[str, Any], index: int
    ) -> tuple[Mapping[str, Any], Callable[[nn.Module], None]]:
        """See `Plan`."""
        if index >= len(block_configs):
            raise UnsupportedModelError(
                f"{cls.__name__} is built with index {index}, but there are {len(block_configs)} block configs",
                expected="one block config for every decoder layer",
            )
        width = _hidden_size(arguments)
        own = per_layer_differences(arguments, index) | overrides[index]
        return own, lambda layer: _replace_halves(family, layer, block_configs[index], width)

    with layer_scope(family.decoder_layer_cls(), plan) as scope:
        yield
        if scope.counts and scope.built % len(block_configs) > 0:
            raise UnsupportedModelError(
                f"{scope.built} layers were built and counted, for {len(block_configs)} block configs",
                expected=f"one of {', '.join(INDEX_NAMES)} in the constructor of every layer, or each layer built once",
            )


def _replace_halves(family: ModelFamily, layer: nn.Module, block: BlockConfig, width: int) -> None:
    halves = ((block.attention, family.attn_no_op_post_init), (block.ffn, family.mlp_no_op_post_init))
    for half, remove in halves:
        if half.no_op:
            remove(layer)
        elif half.replace_with_linear:
            try:
                replace_by_linear(layer, remove, width)
            except NotImplementedError as error:
                raise UnsupportedModelError(
                    f"{family.model_type} cannot have a linear map in place of this half: {error}",
                    expected="a half that is one module between norms",
                ) from error


def _hidden_size(arguments: Mapping[str, Any]) -> int:
    config = next((value for value in arguments.values() if hasattr(value, "hidden_size")), None)
    return int(getattr(config, "hidden_size", 0))
