"""Scores around a child: what another candidate would change once others are chosen already.

Single replacements in the teacher do not add up. Around a child with hidden states `h`, changing one half of one layer
changes that layer's output by `d`, and KL(teacher || child) by about `g . d + (probe . d)^2 / 2`: `g` is the gradient of the
divergence itself, and the second term its Gauss-Newton curvature, the mean over probes drawn from the child's predictions.
Both gradients are carried backwards through the child's layers once; each candidate costs its own layer. The products are
kept token by token, and those of several exchanges add up inside the square: that is how exchanges act on one another.

The curvature is taken token by token, and the removal of an attention changes many tokens alike. Left alone, a search would pick
just those exchanges whose harm is underestimated, so some of each half are measured, and its curvature is brought to their level.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import torch

from anyblock.calibration.batches import Batches
from anyblock.candidates.candidate import Candidate
from anyblock.candidates.views import CandidateWeights
from anyblock.errors import ExecutionError
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.modeling.spool import IN_MEMORY, Spool, SpooledTensors
from anyblock.progress import SILENT, Progress
from anyblock.realize.child_layers import ChildLayers
from anyblock.scoring.gradients import divergence_gradients, input_gradients, probe_gradients
from anyblock.scoring.replace_one import TeacherTrace
from anyblock.scoring.targets import TeacherTargets

_LEVELS: Final = (0.5, 4.0)
"""A handful of measurements says no more."""

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
        own = reference is None
        trace = TeacherTrace(reference or engine, batches, metric="kl", spool=spool, same_head=own, progress=progress)
        self._batches, self._first = trace.batches, trace.inputs[0]
        self._targets = trace.targets
        if reference is not None:
            reference.release()
            self._batches, self._first = engine.prepare_all(batches, spool)
            whole = [target for target in self._targets if isinstance(target, TeacherTargets)]  # all: see `same_head`
            self._targets = [target.seen_by(engine, batch) for target, batch in zip(whole, self._batches, strict=True)]

    @torch.no_grad()
    def divergence(self, choice: Choice, *, changed: Mapping[str, torch.Tensor] | None = None) -> float:
        """Return the KL(teacher || child) of this child, in nats a token, on the scoring text.

        Args:
            choice: the child.
            changed: tensors by checkpoint name that replace those of its candidates.
        """
        child = ChildLayers(self._engine, self._weights, choice, changed=changed)
        hidden = self._first
        for index in range(self._engine.num_layers):
            hidden = self._spool.collect(child.run(index, hidden, self._batches))
        return self._mean(hidden)

    def neighbours(self, choice: Choice, candidates: Sequence[Candidate]) -> Neighbourhood:
        """Estimate what each candidate would change in a child, alone and together with others.

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
        child = ChildLayers(engine, self._weights, choice, others=others)
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
        found: dict[str, torch.Tensor] = {}
        total = sum(map(len, others))
        with self._progress.task("Scoring around the child", total=total, unit="candidates") as advance:
            for index in range(layers - 1, -1, -1):
                for candidate in others[index]:
                    found[candidate.key] = self._products(child, candidate, inputs, gradients)
                    advance(1)
                with child.layer(index) as layer:
                    gradients = self._spool.collect(
                        input_gradients(engine, index, batch, hidden, gradient, layer=layer)
                        for batch, hidden, gradient in zip(self._batches, inputs[index], gradients, strict=True)
                    )
        return Neighbourhood(found, candidates, chosen)

    @torch.no_grad()
    def _products(
        self,
        child: ChildLayers,
        candidate: Candidate,
        inputs: Sequence[SpooledTensors],
        gradients: SpooledTensors,
    ) -> torch.Tensor:
        """Return the products of gradient and change of every token, [1 + probes, tokens]: of the slope, then the probes.

        Those of the probes are damped.
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
        if not bool(found.isfinite().all()):
            raise ExecutionError(f"{candidate.key}: the estimated change is not finite", hint="try dtype=float32")
        return _damped(found).cpu()

    def _mean(self, hidden: SpooledTensors) -> float:
        pairs = [target.distance(states) for target, states in zip(self._targets, hidden, strict=True)]
        return sum(value for value, _ in pairs) / sum(tokens for _, tokens in pairs)


class Neighbourhood:
    """What exchanges in a child would change of its divergence, in nats a token.

    Args:
        products: `{candidate key: products of its change with the slope and the probes, [1 + probes, tokens]}`.
        candidates: those, and what the child has.
        chosen: the keys of what the child has.
    """

    def __init__(
        self, products: Mapping[str, torch.Tensor], candidates: Sequence[Candidate], chosen: Collection[str]
    ) -> None:
        self._products = products
        self._candidates = candidates
        self._chosen = chosen
        self._groups = {candidate.key: candidate.group for candidate in candidates}
        self._own = [key for key in self._groups if key in chosen]

    def sample(self, count: int) -> list[Candidate]:
        """Choose exchanges to measure: of each half, spread over the better half of what is predicted for it."""
        predicted = self.alone()
        free = [candidate for candidate in self._candidates if candidate.key in self._products]
        found: list[Candidate] = []
        for half in sorted({candidate.half for candidate in free}):
            mine = sorted((c for c in free if c.half == half), key=lambda c: (predicted[c.key], c.key))
            share = max(round(count * len(mine) / len(free)), min(4, count // 2), 2)
            places = torch.linspace(0, (len(mine) - 1) / 2, min(share, len(mine))).round().long()
            found += [mine[place] for place in sorted(set(places.tolist()))]
        return found

    def levels(self, measured: Mapping[str, float]) -> dict[str, float]:
        """Return `{half: factor}` by which the curvature is underestimated: the median of measured exchanges.

        Args:
            measured: what exchanges really change, by candidate key.
        """
        ratios: dict[str, list[float]] = {}
        for candidate in self._candidates:
            if candidate.key in measured and candidate.key in self._products:
                slope, curvature = _parts(self._products[candidate.key])
                if curvature > 0:
                    ratios.setdefault(candidate.half, []).append((measured[candidate.key] - slope) / curvature)
        least, most = _LEVELS
        return {half: min(max(statistics.median(found), least), most) for half, found in ratios.items()}

    def levelled(self, levels: Mapping[str, float]) -> Neighbourhood:
        """Return the same with the curvature of each half times its level; 1 where there is none."""
        found = {}
        for candidate in self._candidates:
            if candidate.key in self._products:
                product = self._products[candidate.key].clone()
                product[1:] *= levels.get(candidate.half, 1.0) ** 0.5
                found[candidate.key] = product
        return Neighbourhood(found, self._candidates, self._chosen)

    def alone(self) -> dict[str, float]:
        """Return `{candidate key: change}` for each candidate as the only exchange; 0 for what the child has."""
        return dict.fromkeys(self._own, 0.0) | {key: _change(product) for key, product in self._products.items()}

    def together(self, keys: Iterable[str]) -> float:
        """Return the change that these exchanges make together; what the child has already changes nothing."""
        products = [self._products[key] for key in keys if key in self._products]
        return _change(torch.stack(products).sum(0)) if products else 0.0

    def besides(self, keys: Iterable[str]) -> dict[str, float]:
        """Return `{candidate key: change}` that each candidate would make beside these exchanges, instead of that of its group."""
        exchanged = {self._groups[key]: self._products[key] for key in keys if key in self._products}
        if not exchanged:
            return self.alone()
        total = torch.stack(list(exchanged.values())).sum(0)
        found = dict.fromkeys(self._own, 0.0)
        for key, product in self._products.items():
            others = total - exchanged[self._groups[key]] if self._groups[key] in exchanged else total
            cross = (product[1:] * others[1:]).mean(0).mean(dtype=torch.float64)
            found[key] = _change(product) + float(cross)
        return found


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
