"""A child that is run layer by layer before it is written, and with one half of one layer exchanged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from anyblock.candidates.candidate import Candidate, child_blocks
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.contract.blocks import HALVES, BlockConfig, group_name
from anyblock.modeling.layerwise import Batch, LayerwiseModel
from anyblock.modeling.variants import LayerVariants


class ChildLayers:
    """The layers of a child, made on demand from its teacher's files.

    Args:
        engine: the teacher.
        weights: the candidates' weights.
        chosen: at most one candidate a subblock; a half without one stays the teacher's.
        changed: tensors by checkpoint name that replace those of the candidates. The mapping is read at every use, so that
            what a caller adds to it later counts from then on.
        others: for every layer, further candidates of which one at a time may stand `instead` of the chosen one.
    """

    def __init__(
        self,
        engine: LayerwiseModel,
        weights: CandidateWeights,
        chosen: Sequence[Candidate],
        *,
        changed: Mapping[str, torch.Tensor] | None = None,
        others: Sequence[Sequence[Candidate]] = (),
    ) -> None:
        self._engine = engine
        self._weights = weights
        self._changed = {} if changed is None else changed
        self._chosen = {candidate.group: candidate for candidate in chosen}
        self.blocks = child_blocks(engine.block_configs, chosen)
        """One block config a layer."""
        wanted = [[block] for block in self.blocks]
        for candidates in others:
            for candidate in candidates:
                wanted[candidate.layer].append(self._exchanged(candidate))
        self._variants = LayerVariants(engine, wanted)

    def layer(self, index: int, *, instead: Candidate | None = None) -> AbstractContextManager[nn.Module]:
        """Lend the child's layer, or the one with `instead` for its half."""
        block = self.blocks[index] if instead is None else self._exchanged(instead)
        return self._variants.layer(index, block, self.tensors(index, instead))

    def run(
        self,
        index: int,
        hidden: Iterable[torch.Tensor],
        batches: Sequence[Batch],
        *,
        instead: Candidate | None = None,
    ) -> Iterator[torch.Tensor]:
        """Run a layer on the hidden states of every batch, [batch, length, hidden] each, one batch after the other."""
        own = instead is None and self.is_teachers(index)
        with nullcontext() if own else self.layer(index, instead=instead) as layer:
            for states, batch in zip(hidden, batches, strict=True):
                yield self._engine.run(index, states, batch, layer=layer)

    def is_teachers(self, index: int) -> bool:
        """Return whether the layer is the teacher's own, weights included."""
        rounded = any(candidate.storage for candidate in self._chosen.values() if candidate.layer == index)
        if rounded or self.blocks[index] != self._engine.block_configs[index]:
            return False
        groups = self._engine.checkpoint.groups
        return not any(name in self._changed for half in HALVES for name in groups.get(group_name(index, half), ()))

    def tensors(self, index: int, instead: Candidate | None = None) -> dict[str, torch.Tensor]:
        """Return the layer's tensors by checkpoint name."""
        found: dict[str, torch.Tensor] = {}
        for half in (*HALVES, "other"):
            group = group_name(index, half)
            if instead is not None and instead.group == group:
                found.update(self._weights.subblock(instead))
            else:
                found.update(self._own(group))
        return found

    def trainable(self, index: int) -> dict[str, nn.Parameter]:
        """Give the lent layer float32 parameters with gradients for both its halves, and return them by checkpoint name.

        Tensors that transformers fuses with others when it loads them (the experts of many sparse models) are left out.
        """
        names = [name for half in HALVES for name in self._own(group_name(index, half))]
        return self._variants.trainable(index, self.blocks[index], names)

    def _own(self, group: str) -> dict[str, torch.Tensor]:
        candidate = self._chosen.get(group)
        if candidate is not None:
            tensors = self._weights.subblock(candidate)
        elif group in self._engine.checkpoint.groups:
            tensors = self._engine.checkpoint.load(group)
        else:
            tensors = {}
        return {name: self._changed.get(name, tensor) for name, tensor in tensors.items()}

    def _exchanged(self, candidate: Candidate) -> BlockConfig:
        own = candidate.block_config.half(candidate.half)
        return self.blocks[candidate.layer].exchanged(candidate.half, own)
