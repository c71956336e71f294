"""The scope within which a stock model class builds every layer from its own block config."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

from anyblock.blocks import BlockConfig
from anyblock.errors import UnsupportedModelError
from anyblock.modeling.layer_scope import INDEX_NAMES, find_layer_index, layer_scope

if TYPE_CHECKING:
    from anyblock.family import ModelFamily


@contextmanager
def heterogeneous(family: ModelFamily, block_configs: Sequence[BlockConfig]) -> Iterator[None]:
    """Within this scope, and in this thread only, the family's decoder layers are built from `block_configs`.

    Each layer's constructor receives a config of its own (`block_config_to_layer_overrides`), and a half that is a no-op
    is removed right after construction. The layer's index is read from the constructor's arguments. Nothing stays
    patched afterwards.

    Raises:
        UnsupportedModelError: a layer's constructor has no index argument, or an index beyond `block_configs`.
    """
    overrides = [family.block_config_to_layer_overrides(block) for block in block_configs]

    def plan(
        cls: type[nn.Module], arguments: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], Callable[[nn.Module], None]]:
        index = layer_index(cls, arguments)
        if index >= len(block_configs):
            raise UnsupportedModelError(
                f"{cls.__name__} is built with index {index}, but there are {len(block_configs)} block configs",
                expected="one block config for every decoder layer",
            )
        return overrides[index], lambda layer: _remove_no_ops(family, layer, block_configs[index])

    with layer_scope(family.decoder_layer_cls(), plan):
        yield


def _remove_no_ops(family: ModelFamily, layer: nn.Module, block: BlockConfig) -> None:
    if block.attention.no_op:
        family.attn_no_op_post_init(layer)
    if block.ffn.no_op:
        family.mlp_no_op_post_init(layer)


def layer_index(cls: type[nn.Module], arguments: Mapping[str, Any]) -> int:
    """Return a layer's index from its constructor's arguments.

    Raises:
        UnsupportedModelError: none of the arguments is a layer index.
    """
    index = find_layer_index(arguments)
    if index is None:
        raise UnsupportedModelError(
            f"the constructor of {cls.__name__} has no layer index among {sorted(set(arguments) - {'self'})}",
            expected=f"one of {', '.join(INDEX_NAMES)}",
        )
    return index
