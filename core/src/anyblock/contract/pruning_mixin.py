"""`PruningMixIn`: turns scores and a target `BlockConfig` into a subblock's weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch

from anyblock.contract.blocks import BlockConfig
from anyblock.contract.importance_hook import ImportanceHook
from anyblock.contract.kind_settings import KindSettings
from anyblock.contract.tensor_axis import TensorAxis, UnitTensors
from anyblock.contract.tensor_select import Chosen, Tensors, select, silence
from anyblock.errors import UsageError

Half = Literal["attention", "ffn"]
Repair = Literal["none", "one_map", "per_expert"]


class PruningMixIn(ABC):
    """One way of making a subblock smaller: the axis, where its units lie in the tensors, and which sizes are legal.

    Tensors are given and returned by checkpoint name, for one subblock; a tensor that the axis does not touch passes
    through as it is. `sort` is done once per layer; a child of any size is then `narrow` of the sorted tensors.

    Class attributes:
        kind: the name in `pruning_mixins()`, for instance `ffn_intermediate`.
        half: the half of the block that shrinks.
        settings: the section of the configuration that stands under `pruning.KIND`. Since 0.2.
        repair: how the weights that remain can make up for removed units. `one_map`: the units are inputs of one linear map, the
            first of `axes`, which is re-fitted by least squares; `per_expert`: of one map in every expert; `none`: they
            stay as they are. Since 0.2.
        nests: whether a smaller child has the first units of a larger one, unchanged, as inputs of the linear module at
            `hook_target`, so that both are scored in one pass. Not valid where a norm spans the units before that module reads
            them; the scoring verifies it. Since 0.2.

    Args:
        layer_descriptor: names the tensors of one layer.
    """

    kind: ClassVar[str]
    half: ClassVar[Half]
    settings: ClassVar[type[KindSettings]] = KindSettings
    repair: ClassVar[Repair] = "none"
    nests: ClassVar[bool] = False

    def __init__(self, layer_descriptor: Any) -> None:
        self.layer_descriptor = layer_descriptor

    # -- sizes ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def applies_to(self, block: BlockConfig) -> bool:
        """Return whether this block has such units at all."""

    @abstractmethod
    def size(self, block: BlockConfig) -> int:
        """Return how many units the block has."""

    @abstractmethod
    def resized(self, block: BlockConfig, size: int, config: Any) -> BlockConfig:
        """Return the block with `size` units; the size is legal."""

    @abstractmethod
    def legal_sizes(self, block: BlockConfig, config: Any) -> Sequence[int]:
        """Return every size that a child of this block may have, ascending, up to the block's own."""

    def resize(self, block: BlockConfig, size: int, config: Any) -> BlockConfig:
        """Return the child's block config.

        Raises:
            UsageError: the size is not legal, see `check_size`.
        """
        self.check_size(block, size, config)
        return self.resized(block, size, config)

    def check_size(self, block: BlockConfig, size: int, config: Any) -> None:
        """Accept a legal size.

        Raises:
            UsageError: the block has no such units, or the size is not legal; the nearest legal sizes are named.
        """
        if not self.applies_to(block):
            raise UsageError(f"{self.kind}: the block has no such units", expected="a block that `applies_to` accepts")
        legal = self.legal_sizes(block, config)
        if size not in legal:
            raise illegal_size(self.kind, size, legal, self.size_rule(block, config))

    @abstractmethod
    def size_rule(self, block: BlockConfig, config: Any) -> str:
        """Return in words which sizes are legal, for the error about one that is not."""

    # -- importance -------------------------------------------------------------------------------------------------

    @abstractmethod
    def supported_hooks(self) -> tuple[type[ImportanceHook], ...]:
        """Return the hook classes that can score these units, the default first; see `ImportanceHook.for_repair`."""

    @abstractmethod
    def hook_target(self, layer_index: int, hook: type[ImportanceHook] | None = None) -> str:
        """Return the path of the module to hook inside the decoder layer, for instance `mlp.down_proj`.

        Args:
            layer_index: the block's index.
            hook: the hook class to attach; None means the default one.
        """

    # -- tensors ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def axes(self, layer_index: int, block: BlockConfig, config: Any) -> tuple[TensorAxis, ...]:
        """Return where the units lie in the tensors of this layer; the first one is what the axis feeds into."""

    def unit_tensors(self, layer_index: int, block: BlockConfig, config: Any) -> UnitTensors | None:
        """Return how units that are tensors of their own are named; None when there are none."""
        return None

    def sort(
        self, layer_index: int, tensors: Tensors, block: BlockConfig, order: torch.Tensor, config: Any
    ) -> dict[str, torch.Tensor]:
        """Permute the units, the best first; the layer's function stays the same.

        Args:
            layer_index: the block's index.
            tensors: the subblock's tensors by checkpoint name.
            block: the teacher's block config.
            order: the unit numbers from the most to the least important, int64 `[units]`; where every expert has its
                own channels, `[experts, units]`.
            config: the configuration of the language model.

        Raises:
            UsageError: `order` is not a permutation of the units.
            CheckpointError: a tensor is missing or its shape does not fit the block config.
        """
        order = order.cpu()
        self._check_order(order, block)
        order = self.sorted_order(order, config)
        return self._select(layer_index, tensors, block, config, {"unit": order, "query": order})

    def narrow(
        self, layer_index: int, tensors: Tensors, block: BlockConfig, child: BlockConfig, config: Any
    ) -> dict[str, torch.Tensor]:
        """Keep the first units of sorted tensors; views wherever the layout allows it. Works on meta tensors.

        Args:
            layer_index: the block's index.
            tensors: the subblock's tensors, as `sort` returned them.
            block: the teacher's block config.
            child: the child's block config.
            config: the configuration of the language model.

        Raises:
            UsageError: the child's size is not legal.
            CheckpointError: a tensor is missing or its shape does not fit the block config.
        """
        kept = self.kept(block, self._child_size(block, child, config), config)
        return self._select(layer_index, tensors, block, config, {"unit": kept, "query": kept})

    def mask(
        self, layer_index: int, tensors: Tensors, block: BlockConfig, child: BlockConfig, config: Any
    ) -> dict[str, torch.Tensor]:
        """Silence, in teacher-shaped copies of sorted tensors, the units that the child lacks.

        The teacher with these tensors is the function that the child must equal. Arguments and errors are those of
        `narrow`.
        """
        removed = self.removed(block, self._child_size(block, child, config), config)
        return silence(self.axes(layer_index, block, config), tensors, self.size(block), removed)

    def kept(self, block: BlockConfig, size: int, config: Any) -> torch.Tensor:
        """Return the positions, among sorted units, of those that a child of this size keeps; int64 `[size]`."""
        return torch.arange(size)

    def sorted_order(self, order: torch.Tensor, config: Any) -> torch.Tensor:
        """Return the order in which `sort` puts the units that it is given in `order`; int64, of the same shape."""
        return order

    def places(self, block: BlockConfig, size: int) -> torch.Tensor:
        """Return where, in the child's output projection, the kept units lie; int64 `[size]`."""
        return torch.arange(size)

    def removed(self, block: BlockConfig, size: int, config: Any) -> torch.Tensor:
        """Return the positions, among sorted units, of those that a child of this size lacks; int64."""
        left = torch.ones(self.size(block), dtype=torch.bool)
        left[self.kept(block, size, config)] = False
        return left.nonzero().squeeze(1)

    def _child_size(self, block: BlockConfig, child: BlockConfig, config: Any) -> int:
        size = self.size(child)
        self.check_size(block, size, config)
        return size

    def _select(
        self, layer_index: int, tensors: Tensors, block: BlockConfig, config: Any, chosen: Chosen
    ) -> dict[str, torch.Tensor]:
        named = self.unit_tensors(layer_index, block, config)
        return select(self.axes(layer_index, block, config), tensors, self.size(block), chosen, named)

    def _check_order(self, order: torch.Tensor, block: BlockConfig) -> None:
        require_permutation(self.kind, order, self.size(block))


def illegal_size(kind: str, size: int, legal: Sequence[int], rule: str) -> UsageError:
    """Return the error for a size that is not among the legal ones; it names the nearest of them."""
    below = max((value for value in legal if value < size), default=None)
    above = min((value for value in legal if value > size), default=None)
    near = " or ".join(str(value) for value in (below, above) if value is not None)
    return UsageError(
        f"{kind}: a size of {size} is not possible" + (f", the teacher has {max(legal)}" if legal else ""),
        expected=rule,
        hint=near and f"the nearest possible size is {near}",
    )


def require_permutation(kind: str, order: torch.Tensor, units: int) -> None:
    """Accept an order of units.

    Raises:
        UsageError: it is not a permutation of `units` units, int64.
    """
    if (
        order.dtype != torch.int64
        or order.shape != (units,)
        or not torch.equal(order.sort().values, torch.arange(units))
    ):
        raise UsageError(
            f"{kind}: the order has the shape {list(order.shape)} and type {order.dtype}",
            expected=f"a permutation of {units} units, int64",
        )
