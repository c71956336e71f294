"""Scores around a child: what another candidate would change once others are chosen already.

Single replacements in the teacher do not add up. Around a child with hidden states `h`, changing one half of one layer
changes that layer's output by `d`, and KL(teacher || child) by about `g . d + (probe . d)^2 / 2`: `g` is the gradient of the
divergence itself, and the second term its Gauss-Newton curvature, the mean over probes drawn from the child's predictions.
Both gradients are carried backwards through the child's layers once; each candidate costs its own layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import torch
from torch import nn

from anyblock.blocks import BlockConfig
from anyblock.calibration.batches import Batches
from anyblock.candidates.candidate import HALVES, Candidate
from anyblock.candidates.views import CandidateWeights
from anyblock.errors import ExecutionError
from anyblock.modeling.layerwise import Batch, LayerwiseModel
from anyblock.modeling.spool import IN_MEMORY, Spool, SpooledTensors
from anyblock.modeling.variants import LayerVariants
from anyblock.progress import SILENT, Progress
from anyblock.realize.realize import child_blocks
from anyblock.scoring.gradients import divergence_gradients, input_gradients, probe_gradients
from anyblock.scoring.replace_one import TeacherTrace

Choice = Sequence[Candidate]
"""One candidate for each subblock, the teacher's own among them."""


class Surroundings:
    """The scoring text as the teacher sees it, to judge children and their neighbours by.

    Args:
        engine: the teacher.
        weights: the candidates' weights.
        batches: the scoring text.
        probes: draws at every token.
        seed: of the draws.
        reference: the model that children are compared with, where it is not the teacher that they are made from.
        spool: where hidden states, gradients and the teacher's logits are kept.
        progress: where to report.
    """

    def __init__(
        self,
        engine: LayerwiseModel,
        weights: CandidateWeights,
        batches: Batches,
        *,
        probes: int,
        seed: int,
        reference: LayerwiseModel | None = None,
        spool: Spool = IN_MEMORY,
        progress: Progress = SILENT,
    ) -> None:
        self._engine = engine
        self._weights = weights
        self._probes = probes
        self._seed = seed
        self._progress = progress
        self._spool = spool
        trace = TeacherTrace(reference or engine, batches, metric="kl", spool=spool, progress=progress)
        self._batches, self._first = trace.batches, trace.inputs[0]
        self._targets = trace.targets
        if reference is not None:
            reference.release()
            self._batches, self._first = engine.prepare_all(batches, spool)
            pairs = zip(self._targets, self._batches, strict=True)
            self._targets = [target.seen_by(engine, batch) for target, batch in pairs]

    @torch.no_grad()
    def divergence(self, choice: Choice) -> float:
        """Return the KL(teacher || child) of this child, in nats a token, on the scoring text."""
        child = _Child(self._engine, self._weights, choice, [[] for _ in range(self._engine.num_layers)])
        hidden = self._first
        for index in range(self._engine.num_layers):
            hidden = self._spool.collect(child.run(index, hidden, self._batches))
        return self._mean(hidden)

    def neighbours(self, choice: Choice, candidates: Sequence[Candidate]) -> dict[str, float]:
        """Return `{candidate key: estimated change of the divergence}` for each candidate as the only change to a child.

        Args:
            choice: the child.
            candidates: the alternatives; one that the child has already changes nothing.

        Raises:
            ExecutionError: an estimate is not finite.
        """
        engine, layers = self._engine, self._engine.num_layers
        others: list[list[Candidate]] = [[] for _ in range(layers)]
        chosen = {candidate.key for candidate in choice}
        for candidate in candidates:
            if candidate.key not in chosen:
                others[candidate.layer].append(candidate)
        child = _Child(engine, self._weights, choice, others)
        inputs = [self._first]
        with torch.no_grad():
            for index in range(layers):
                inputs.append(self._spool.collect(child.run(index, inputs[-1], self._batches)))
        generator = torch.Generator().manual_seed(self._seed)
        gradients = self._spool.collect(
            torch.cat(
                [
                    divergence_gradients(engine, target, batch, hidden)[None],
                    probe_gradients(engine, batch, hidden, self._probes, generator),
                ]
            )
            for target, batch, hidden in zip(self._targets, self._batches, inputs[-1], strict=True)
        )
        found = dict.fromkeys(chosen, 0.0)
        total = sum(map(len, others))
        with self._progress.task("Scoring around the child", total=total, unit="candidates") as advance:
            for index in range(layers - 1, -1, -1):
                for candidate in others[index]:
                    found[candidate.key] = self._change(child, candidate, inputs, gradients)
                    advance(1)
                with child.layer(index) as layer:
                    gradients = self._spool.collect(
                        input_gradients(engine, index, batch, hidden, gradient, layer=layer)
                        for batch, hidden, gradient in zip(self._batches, inputs[index], gradients, strict=True)
                    )
        return found

    @torch.no_grad()
    def _change(
        self,
        child: _Child,
        candidate: Candidate,
        inputs: Sequence[SpooledTensors],
        gradients: SpooledTensors,
    ) -> float:
        index = candidate.layer
        total, tokens = 0.0, 0
        outputs = child.run(index, inputs[index], self._batches, instead=candidate)
        for output, before, gradient in zip(outputs, inputs[index + 1], gradients, strict=True):
            along = torch.einsum("pbth,bth->pbt", gradient, output.float() - before.float())
            total += float(along[0].sum(dtype=torch.float64) + along[1:].square().mean(0).sum(dtype=torch.float64) / 2)
            tokens += output.shape[0] * output.shape[1]
        if not torch.isfinite(torch.tensor(total)):
            raise ExecutionError(f"{candidate.key}: the estimated change is {total}", hint="try dtype=float32")
        return total / tokens

    def _mean(self, hidden: SpooledTensors) -> float:
        pairs = [target.distance(states) for target, states in zip(self._targets, hidden, strict=True)]
        return sum(value for value, _ in pairs) / sum(tokens for _, tokens in pairs)


class _Child:
    """A child that is run layer by layer, and with one half of one layer exchanged."""

    def __init__(
        self,
        engine: LayerwiseModel,
        weights: CandidateWeights,
        choice: Choice,
        others: Sequence[Sequence[Candidate]],
    ) -> None:
        self._engine = engine
        self._weights = weights
        self._chosen = {candidate.group: candidate for candidate in choice}
        self._blocks = child_blocks(engine.block_configs, choice)
        wanted = [
            [block, *(self._exchanged(candidate) for candidate in candidates)]
            for block, candidates in zip(self._blocks, others, strict=True)
        ]
        self._variants = LayerVariants(engine, wanted)

    def run(
        self,
        index: int,
        hidden: SpooledTensors,
        batches: Sequence[Batch],
        *,
        instead: Candidate | None = None,
    ) -> Iterator[torch.Tensor]:
        """Run the child's layer, or the one with `instead` for its half, one batch after the other."""
        with self.layer(index, instead=instead) as layer:
            for states, batch in zip(hidden, batches, strict=True):
                yield self._engine.run(index, states, batch, layer=layer)

    def layer(self, index: int, *, instead: Candidate | None = None) -> AbstractContextManager[nn.Module]:
        """Lend the child's layer."""
        block = self._blocks[index] if instead is None else self._exchanged(instead)
        return self._variants.layer(index, block, self._tensors(index, instead))

    def _exchanged(self, candidate: Candidate) -> BlockConfig:
        half = getattr(candidate.block_config, candidate.half)
        return replace(self._blocks[candidate.layer], **{candidate.half: half})

    def _tensors(self, index: int, instead: Candidate | None) -> dict[str, torch.Tensor]:
        tensors: dict[str, torch.Tensor] = {}
        for half in (*HALVES, "other"):
            group = f"block_{index}_{half}"
            candidate = instead if instead is not None and instead.group == group else self._chosen.get(group)
            if candidate is not None:
                tensors.update(self._weights.subblock(candidate))
            elif group in self._engine.checkpoint.groups:
                tensors.update(self._engine.checkpoint.load(group))
        return tensors
