"""Removing channels of the residual stream from the whole model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch

from anyblock.contract.blocks import BlockConfig
from anyblock.contract.cache_spec import head_width
from anyblock.contract.importance_hook import ImportanceHook
from anyblock.contract.pruning_mixin import Half, PruningMixIn
from anyblock.contract.tensor_axis import Segment, Silence, TensorAxis
from anyblock.contract.tensor_select import Tensors, select, silence
from anyblock.errors import UsageError
from anyblock.importance.norms import LayerNormContributionHook


@dataclass(frozen=True, kw_only=True)
class HiddenSizeLayerDescriptor:
    """Which tensors of the whole checkpoint touch the residual stream, as regular expressions on whole names.

    Args:
        readers: `{pattern: dimension}` of weights that read it, the head among them.
        writers: `{pattern: dimension}` of weights and biases that write to it, the embedding among them.
        norms: patterns of the RMS norms over it, in dimension 0.
        target_name: module path, inside the decoder layer, of the norm whose output is watched.
        pins: further attributes that `resize_config` has to write down, because the model would otherwise derive them
            from the hidden size.
    """

    readers: Mapping[str, int]
    writers: Mapping[str, int]
    norms: tuple[str, ...]
    target_name: str = "input_layernorm"
    pins: tuple[str, ...] = ()

    @cached_property
    def rules(self) -> tuple[tuple[re.Pattern[str], int, Silence], ...]:
        """Every pattern with its dimension and with what silences a channel there."""
        zero, norm, keep = Silence.ZERO, Silence.NORM, Silence.KEEP
        return (
            *((re.compile(pattern), dim, keep) for pattern, dim in self.readers.items()),
            *((re.compile(pattern), dim, zero) for pattern, dim in self.writers.items()),
            *((re.compile(pattern), 0, norm) for pattern in self.norms),
        )


class HiddenSizePruningMixIn(PruningMixIn):
    """Keep the best channels of the residual stream, the same ones in every layer.

    The size is the model's, so it is in the configuration and not in a block config: `size` reads `config.hidden_size`,
    `resize` leaves the block as it is, and `narrow` and `mask` take the child's size from the `config` they are given,
    which is the child's (see `resize_config`). They work on any group of the checkpoint, embeddings and head as well;
    `layer_index` and the block configs are not looked at. An RMS norm of the child divides by the mean over its own
    channels; `mask` scales the teacher's norms accordingly, so that the two agree up to the norm's epsilon.
    """

    kind: ClassVar[str] = "hidden_size"
    half: ClassVar[Half] = "model"
    layer_descriptor: HiddenSizeLayerDescriptor

    def applies_to(self, block: BlockConfig) -> bool:
        """See `PruningMixIn.applies_to`: every block."""
        return True

    def size(self, block: BlockConfig, config: Any = None) -> int:
        """Return the number of channels of the residual stream.

        Raises:
            UsageError: no configuration is given; a block config does not hold the hidden size.
        """
        if config is None:
            raise UsageError("hidden_size: a block config does not hold the hidden size", expected="the configuration")
        return int(config.hidden_size)

    def legal_sizes(self, block: BlockConfig, config: Any) -> Sequence[int]:
        """Return every size from 1 on."""
        return range(1, self.size(block, config) + 1)

    def resize_config(self, config: Any, size: int) -> dict[str, Any]:
        """Return the attributes that the child's configuration changes: the hidden size; `head_dim` is pinned.

        Raises:
            UsageError: the size is not legal.
        """
        if not 1 <= size <= int(config.hidden_size):
            raise UsageError(
                f"hidden_size: a size of {size} is not possible, the teacher has {config.hidden_size}",
                expected=f"1 to {config.hidden_size}",
                hint=f"the nearest possible size is {max(1, min(size, int(config.hidden_size)))}",
            )
        pins = {name: getattr(config, name) for name in self.layer_descriptor.pins}
        return {"hidden_size": size, "head_dim": head_width(config), **pins}

    def supported_hooks(self) -> tuple[type[ImportanceHook], ...]:
        """See `PruningMixIn.supported_hooks`."""
        return (LayerNormContributionHook,)

    def hook_target(self, layer_index: int, hook: type[ImportanceHook] | None = None) -> str:
        """Return the path of the norm in front of the attention."""
        return self.layer_descriptor.target_name

    def sort(
        self, layer_index: int, tensors: Tensors, block: BlockConfig, order: torch.Tensor, config: Any
    ) -> dict[str, torch.Tensor]:
        """See `PruningMixIn.sort`; `tensors` is any group, and `config` the teacher's."""
        self._check_permutation(order.cpu(), int(config.hidden_size))
        return select(self.axes_of(tensors), tensors, int(config.hidden_size), {"unit": order.cpu()})

    def narrow(
        self, layer_index: int, tensors: Tensors, block: BlockConfig, child: BlockConfig, config: Any
    ) -> dict[str, torch.Tensor]:
        """See `PruningMixIn.narrow`; `tensors` is any group, and `config` the child's."""
        axes = self.axes_of(tensors)
        return select(axes, tensors, self._units(axes, tensors, config), {"unit": torch.arange(config.hidden_size)})

    def mask(
        self, layer_index: int, tensors: Tensors, block: BlockConfig, child: BlockConfig, config: Any
    ) -> dict[str, torch.Tensor]:
        """See `PruningMixIn.mask`; `tensors` is any group, and `config` the child's."""
        axes = self.axes_of(tensors)
        units = self._units(axes, tensors, config)
        return silence(axes, tensors, units, torch.arange(config.hidden_size, units))

    def axes(self, layer_index: int, block: BlockConfig, config: Any) -> tuple[TensorAxis, ...]:
        """Return nothing: the tensors are found by pattern, see `axes_of`."""
        return ()

    def axes_of(self, names: Iterable[str]) -> tuple[TensorAxis, ...]:
        """Return where the channels lie in those of these tensors that touch the residual stream."""
        return tuple(
            TensorAxis(name, dim, (Segment(silence=silence),))
            for name in names
            for pattern, dim, silence in self.layer_descriptor.rules
            if pattern.fullmatch(name)
        )

    def _units(self, axes: Sequence[TensorAxis], tensors: Tensors, config: Any) -> int:
        if not axes:
            return int(config.hidden_size)
        units = tensors[axes[0].name].shape[axes[0].dim]
        if units < config.hidden_size:
            raise UsageError(
                f"hidden_size: a size of {config.hidden_size} is not possible, the teacher has {units}",
                expected="the child's configuration, with a hidden size up to the teacher's",
            )
        return units

    def resized(self, block: BlockConfig, size: int, config: Any) -> BlockConfig:
        """See `PruningMixIn.resized`."""
        return block

    def size_rule(self, block: BlockConfig, config: Any) -> str:
        """See `PruningMixIn.size_rule`."""
        return f"1 to {self.size(block, config)}"
