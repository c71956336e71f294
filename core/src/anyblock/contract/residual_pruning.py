"""`ResidualPruning`: fewer channels of the residual stream, the same ones in the whole model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Final

import torch

from anyblock.contract.importance_hook import ImportanceHook
from anyblock.contract.pruning_mixin import illegal_size, require_permutation
from anyblock.contract.tensor_axis import TensorAxis
from anyblock.contract.tensor_select import Tensors, select, silence

HIDDEN_SIZE: Final = "hidden_size"
"""The capability, the key below `pruning`, and the name of the channels' scores."""


class ResidualPruning(ABC):
    """How a family keeps the best channels of its residual stream.

    All layers share the stream, so its width is the model's and not a block's: block configs stay as they are, and the
    configuration changes with every tensor that reads the stream, writes to it or normalises it. `sort`, `narrow` and
    `mask` take tensors by checkpoint name, of one group of the checkpoint or of several, those outside the layers
    included; a tensor that does not touch the stream passes through as it is.
    """

    # -- sizes ------------------------------------------------------------------------------------------------------

    def legal_sizes(self, config: Any) -> Sequence[int]:
        """Return every hidden size that a child may have, ascending, up to the model's own: every one from 1 on."""
        return range(1, int(config.hidden_size) + 1)

    def check_size(self, size: int, config: Any) -> None:
        """Accept a legal size.

        Raises:
            UsageError: the size is not legal; the nearest legal ones are named.
        """
        legal = self.legal_sizes(config)
        if size not in legal:
            raise illegal_size(HIDDEN_SIZE, size, legal, f"{legal[0]} to {legal[-1]}")

    @abstractmethod
    def child_config(self, config: Any, size: int) -> dict[str, Any]:
        """Return `{attribute: value}` for what a child of a legal size has otherwise in the language model's configuration.

        Besides the hidden size these are sizes that a model derives from it, such as `head_dim`, and that stay.
        """

    # -- importance -------------------------------------------------------------------------------------------------

    @abstractmethod
    def supported_hooks(self) -> tuple[type[ImportanceHook], ...]:
        """Return the hook classes that can score the channels, the default first; the scores of all layers are added."""

    @abstractmethod
    def hook_target(self, layer_index: int, hook: type[ImportanceHook] | None = None) -> str:
        """Return the path of the module to hook inside the decoder layer; see `PruningMixIn.hook_target`."""

    # -- tensors ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def axes(self, names: Iterable[str]) -> tuple[TensorAxis, ...]:
        """Return where the channels lie in those of these tensors that touch the residual stream."""

    def sort(self, tensors: Tensors, order: torch.Tensor) -> dict[str, torch.Tensor]:
        """Permute the channels, the best first; with all tensors sorted, the model's function stays the same.

        Args:
            tensors: by checkpoint name.
            order: the channels from the most to the least important, int64 `[hidden]`.

        Raises:
            UsageError: `order` is not a permutation.
            CheckpointError: a tensor has another number of channels.
        """
        order = order.cpu()
        require_permutation(HIDDEN_SIZE, order, len(order))
        return select(self.axes(tensors), tensors, len(order), {"unit": order})

    def narrow(self, tensors: Tensors, size: int) -> dict[str, torch.Tensor]:
        """Keep the first `size` channels of sorted tensors; views wherever the layout allows it. Works on meta tensors.

        Raises:
            UsageError: the tensors have fewer channels.
            CheckpointError: they differ in the number of channels.
        """
        axes = self.axes(tensors)
        return select(axes, tensors, _channels(axes, tensors, size), {"unit": torch.arange(size)})

    def mask(self, tensors: Tensors, size: int) -> dict[str, torch.Tensor]:
        """Silence, in teacher-shaped copies of sorted tensors, all channels after the first `size`.

        The teacher with these tensors is the function that the child must equal. Errors are those of `narrow`.
        """
        axes = self.axes(tensors)
        channels = _channels(axes, tensors, size)
        return silence(axes, tensors, channels, torch.arange(size, channels))


def _channels(axes: Sequence[TensorAxis], tensors: Tensors, size: int) -> int:
    found = next((tensors[axis.name].shape[axis.dim] for axis in axes), size)
    if not 1 <= size <= found:
        raise illegal_size(HIDDEN_SIZE, size, range(1, found + 1), f"1 to {found}")
    return found
