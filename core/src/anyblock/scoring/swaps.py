"""Scores around a child: what another candidate would change once others are chosen already.

Single replacements in the teacher do not add up. Around a child with hidden states `h`, changing one half of one layer
changes that layer's output by `d`, and KL(teacher || child) by about `g . d + (probe . d)^2 / 2`: `g` is the gradient of the
divergence itself, and the second term its Gauss-Newton curvature, the mean over probes drawn from the child's predictions.
Both gradients are carried backwards through the child's layers once; each candidate costs its own layer. The products are
kept token by token, and those of several exchanges add up inside the square: that is how exchanges act on one another.

The curvature is taken token by token, and the removal of an attention changes many tokens alike: so some exchanges of each half are
measured, and its curvature is corrected by them. A search picks just those exchanges whose harm is underestimated; whatever it
picks can be measured, and the search repeated.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

import torch

from anyblock.calibration.batches import Batches
from anyblock.candidates.candidate import Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.candidates.child_layers import ChildLayers
from anyblock.errors import NotFiniteError
from anyblock.modeling.finite import all_finite
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.modeling.linear_head import find_linear_head
from anyblock.modeling.metrics import KlDivergence
from anyblock.modeling.process_memory import give_back
from anyblock.modeling.spool import IN_MEMORY, Spool, SpooledTensors
from anyblock.modeling.teacher_targets import TeacherTargets
from anyblock.progress import SILENT, Progress
from anyblock.scoring.estimate import spread_sample
from anyblock.scoring.gradients import divergence_gradients, input_gradients, probe_gradients
from anyblock.scoring.replace_one import TeacherTrace

_FACTORS: Final = (0.5, 4.0)
"""Bounds of the curvature's correction; a handful of measurements justifies no more."""

Choice = Sequence[Candidate]
"""One candidate for each subblock, the teacher's own among them."""


class ChildScorer:
    """Judges children and swaps in them by the scoring text as the teacher sees it.

    Args:
        engine: the teacher.
        reference: the model that children are compared with, perhaps the teacher itself.
        weights: the candidates' weights.
        batches: the scoring text.
        probes: draws at every token.
        seed: of the draws.
        spool: where hidden states, gradients and the teacher's logits are kept.
        progress: where to report.
    """

    def __init__(
        self,
        engine: LayerwiseModel,
        reference: LayerwiseModel,
        weights: CandidateWeights,
        batches: Batches,
        *,
        probes: int,
        seed: int,
        spool: Spool = IN_MEMORY,
        progress: Progress = SILENT,
    ) -> None:
        self._engine = engine
        self._weights = weights
        self._probes = probes
        self._seed = seed
        self._progress = progress
        self._spool = spool
        own = reference is engine
        trace = TeacherTrace(reference, batches, metric=KlDivergence(), spool=spool, same_head=own, progress=progress)
        self._batches, self._first = trace.batches, trace.inputs[0]
        self._targets = trace.targets
        if not own:
            reference.release()
            self._batches, self._first = engine.prepare_all(batches, spool)
            whole = [target for target in self._targets if isinstance(target, TeacherTargets)]  # all: see `same_head`
            self._targets = [target.seen_by(engine, batch) for target, batch in zip(whole, self._batches, strict=True)]

    @torch.no_grad()
    def divergence(self, choice: Choice, *, changed: Mapping[str, torch.Tensor] | None = None) -> float:
        """Return the KL(teacher || child) of this child, in nats per token, on the scoring text.

        It is infinite where the child gives NaN or infinite numbers, so that no comparison prefers that child.

        Args:
            choice: the child.
            changed: tensors by checkpoint name that replace those of its candidates.
        """
        child = ChildLayers(self._engine, self._weights, choice, changed=changed)
        hidden: SpooledTensors | None = self._first
        for index in range(self._engine.num_layers):
            hidden = self._passed(child, index, hidden)
        return self._mean(hidden)

    def swaps(self, choice: Choice, candidates: Sequence[Candidate]) -> SwapScores:
        """Estimate what each candidate would change in a child, individually and jointly with others.

        Args:
            choice: the child.
            candidates: the alternatives; one that the child has already changes nothing, and one with which it would give
                NaN or infinite numbers changes it infinitely.

        Raises:
            NotFiniteError: the child itself gives NaN or infinite numbers.
        """
        engine, layers = self._engine, self._engine.num_layers
        others: list[list[Candidate]] = [[] for _ in range(layers)]
        chosen = {candidate.key for candidate in choice}
        for candidate in candidates:
            if candidate.key not in chosen:
                others[candidate.layer].append(candidate)
        child = ChildLayers(engine, self._weights, choice, others=others)
        inputs = [self._first]
        with torch.no_grad():
            for index in range(layers):
                inputs.append(self._spool.collect(child.run(index, inputs[-1], self._batches)))
        generator, head = torch.Generator().manual_seed(self._seed), find_linear_head(engine)
        gradients = self._spool.collect(
            torch.cat(
                [
                    divergence_gradients(engine, target, batch, hidden)[None],
                    probe_gradients(engine, batch, hidden, self._probes, generator, head=head),
                ]
            )
            for target, batch, hidden in zip(self._targets, self._batches, inputs[-1], strict=True)
        )
        found: dict[str, torch.Tensor] = {}
        total = sum(map(len, others))
        with self._progress.task("Scoring around the child", total=total, unit="candidates") as advance:
            for index in range(layers - 1, -1, -1):
                give_back()  # what the layer before freed
                for candidate in others[index]:
                    product = self._products(child, candidate, inputs, gradients)
                    if all_finite([product]):
                        found[candidate.key] = product
                    advance(1)
                with child.layer(index) as layer:
                    gradients = self._spool.collect(
                        input_gradients(engine, index, batch, hidden, gradient, layer=layer)
                        for batch, hidden, gradient in zip(self._batches, inputs[index], gradients, strict=True)
                    )
        own = self._mean(inputs[-1])

        def measure(exchanges: Sequence[Candidate]) -> list[float]:
            return [value - own for value in self._exchanged(child, exchanges, inputs)]

        return SwapScores(found, candidates, chosen, measure)

    @torch.no_grad()
    def _exchanged(
        self, child: ChildLayers, exchanges: Sequence[Candidate], inputs: Sequence[SpooledTensors]
    ) -> list[float]:
        """Return the divergence of the child with each exchange; only the layers from there on are run.

        All exchanges go through a layer before the next one, whose weights may have to be loaded for it.
        """
        layers = self._engine.num_layers
        states: list[SpooledTensors | None] = [None] * len(exchanges)
        total = sum(layers - candidate.layer for candidate in exchanges)
        with self._progress.task("Measuring exchanges", total=total, unit="layers") as advance:
            for index in range(min((candidate.layer for candidate in exchanges), default=layers), layers):
                for place, candidate in enumerate(exchanges):
                    before, instead = states[place], None
                    if candidate.layer == index:
                        before, instead = inputs[index], candidate
                    if candidate.layer <= index:
                        states[place] = self._passed(child, index, before, instead)
                        advance(1)
        return [self._mean(hidden) for hidden in states]

    def _passed(
        self, child: ChildLayers, index: int, hidden: SpooledTensors | None, instead: Candidate | None = None
    ) -> SpooledTensors | None:
        """Run a layer of a child; None, which is passed on, where its numbers are not finite."""
        if hidden is None:
            return None
        try:
            return self._spool.collect(child.run(index, hidden, self._batches, instead=instead))
        except NotFiniteError:
            return None

    @torch.no_grad()
    def _products(
        self,
        child: ChildLayers,
        candidate: Candidate,
        inputs: Sequence[SpooledTensors],
        gradients: SpooledTensors,
    ) -> torch.Tensor:
        """Return the products of gradient and change of every token, [1 + probes, tokens]: of the slope, then the probes.

        Those of the probes are damped. Where the candidate's numbers are not finite, the products are not either.
        """
        index = candidate.layer
        outputs = child.run(index, inputs[index], self._batches, instead=candidate)
        found = torch.cat(
            [
                torch.einsum("pbth,bth->pbt", gradient, output.float() - before.float()).flatten(1)
                for output, before, gradient in zip(outputs, inputs[index + 1], gradients, strict=True)
            ],
            dim=1,
        )
        return _damped(found).cpu()

    def _mean(self, hidden: SpooledTensors | None) -> float:
        if hidden is None:
            return math.inf
        try:
            pairs = [target.distance(states) for target, states in zip(self._targets, hidden, strict=True)]
        except NotFiniteError:
            return math.inf
        return sum(value for value, _ in pairs) / sum(tokens for _, tokens in pairs)


class SwapScores:
    """What swaps of candidates in a child would change of its divergence, in nats per token.

    Args:
        products: `{candidate key: products of its change with the slope and the probes, [1 + probes, tokens]}`; candidates
            without are not to be chosen.
        candidates: those, and what the child has.
        chosen: the keys of what the child has.
        measure: returns what each of some exchanges really changes.
    """

    def __init__(
        self,
        products: Mapping[str, torch.Tensor],
        candidates: Sequence[Candidate],
        chosen: Collection[str],
        measure: Callable[[Sequence[Candidate]], list[float]],
    ) -> None:
        self._products = dict(products)
        self._free = {candidate.key: candidate for candidate in candidates if candidate.key in products}
        self._own = [candidate.key for candidate in candidates if candidate.key in chosen]
        self._barred = [candidate.key for candidate in candidates if candidate.key not in {*products, *chosen}]
        self._measure = measure
        self._measured: dict[str, float] = {}

    def sample(self, count: int) -> list[Candidate]:
        """Choose exchanges to measure: of each half, spread over the better half of what is predicted for it."""
        return spread_sample(list(self._free.values()), self.individual(), count, part=0.5)

    def unmeasured(self, keys: Iterable[str]) -> list[Candidate]:
        """Return those of these exchanges that nothing but a prediction is known of."""
        return [self._free[key] for key in sorted(keys) if key in self._free and key not in self._measured]

    def measure(self, exchanges: Sequence[Candidate]) -> None:
        """Find out what each exchange really changes when it is the only one, and predict it so from now on."""
        if exchanges:
            keys = [candidate.key for candidate in exchanges]
            self._measured.update(zip(keys, self._measure(exchanges), strict=True))

    def factors(self) -> dict[str, float]:
        """Return `{half: factor}` by which the curvature is underestimated: the median of what was measured."""
        ratios: dict[str, list[float]] = {}
        for key, change in self._measured.items():
            slope, curvature = _parts(self._products[key])
            if curvature > 0 and math.isfinite(change):
                ratios.setdefault(self._free[key].half, []).append((change - slope) / curvature)
        least, most = _FACTORS
        return {half: min(max(statistics.median(found), least), most) for half, found in ratios.items()}

    def calibrate(self, factors: Mapping[str, float]) -> None:
        """Multiply the curvature of each half by its factor, 1 where there is none."""
        for key, candidate in self._free.items():
            product = self._products[key].clone()
            product[1:] *= factors.get(candidate.half, 1.0) ** 0.5
            self._products[key] = product

    def individual(self) -> dict[str, float]:
        """Return `{candidate key: change}` for each candidate as the only exchange; 0 for what the child has."""
        free = {key: self._individual(key) for key in self._free}
        return dict.fromkeys(self._own, 0.0) | dict.fromkeys(self._barred, math.inf) | free

    def joint(self, keys: Iterable[str]) -> float:
        """Return the change that these exchanges make together; what the child has already changes nothing."""
        free = [key for key in keys if key in self._free]
        if not free:
            return 0.0
        known = sum(self._individual(key) - _change(self._products[key]) for key in free)
        return _change(torch.stack([self._products[key] for key in free]).sum(0)) + known

    def given(self, keys: Iterable[str]) -> dict[str, float]:
        """Return `{candidate key: change}` of each candidate given these exchanges; it replaces the one of its own group."""
        exchanged = {self._free[key].group: self._products[key] for key in keys if key in self._free}
        found = self.individual()
        if not exchanged:
            return found
        total = torch.stack(list(exchanged.values())).sum(0)
        for key, candidate in self._free.items():
            others = total - exchanged[candidate.group] if candidate.group in exchanged else total
            cross = (self._products[key][1:] * others[1:]).mean(0).mean(dtype=torch.float64)
            found[key] += float(cross)
        return found

    def _individual(self, key: str) -> float:
        return self._measured[key] if key in self._measured else _change(self._products[key])


def _damped(product: torch.Tensor) -> torch.Tensor:
    """Let the half mean square x of a token's curvature count as log(1 + x), for the reason that `estimate` gives."""
    curvature = product[1:].square().mean(0) / 2
    product[1:] *= torch.where(curvature > 0, curvature.log1p() / curvature, 1.0).sqrt()
    return product


def _change(product: torch.Tensor) -> float:
    return sum(_parts(product))


def _parts(product: torch.Tensor) -> tuple[float, float]:
    """Return slope and curvature, whose sum the change is."""
    linear = product[0].mean(dtype=torch.float64)
    return float(linear), float(product[1:].square().mean(0).mean(dtype=torch.float64) / 2)
