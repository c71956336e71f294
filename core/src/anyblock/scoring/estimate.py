"""Cheap scores: one layer a candidate instead of the rest of the model.

For a small change `d` of a layer's output, the KL divergence from the teacher is, to second order, half the mean square of
`g . d`, where `g` is the gradient at that output of the log-probability of a token drawn from the teacher's own
prediction (the Fisher information as a metric; Amari 1998, Martens 2020). A few such draws, the probes, are carried
backwards through the layers once; each candidate then costs its own layer alone. The squares are taken token by token,
which leaves out the interplay of tokens but has far less variance.

The gradients of a few tokens explode on their way back, and then say that any change there costs many nats, which no
change does. So the half mean square x of a token counts as `log(1 + x)`: the same where it is far below one nat.

Large changes leave the second-order regime, so a sample of candidates is scored exactly and the rest is corrected by a
fit to it (`correct`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import torch

from anyblock.calibration.batches import Batches
from anyblock.candidates.candidate import Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.modeling.finite import require_finite_score
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.modeling.linear_head import find_linear_head
from anyblock.modeling.metrics import BlockError
from anyblock.modeling.spool import IN_MEMORY, Spool
from anyblock.progress import SILENT, Progress
from anyblock.scoring.gradients import input_gradients, probe_gradients
from anyblock.scoring.layer_outputs import LayerOutputs
from anyblock.scoring.replace_one import TeacherTrace, naming


def estimate_scores(
    engine: LayerwiseModel,
    candidates: Sequence[Candidate],
    weights: CandidateWeights,
    batches: Batches,
    *,
    probes: int = 4,
    seed: int = 0,
    done: Collection[str] = (),
    record: Callable[[Candidate, float], None],
    spool: Spool = IN_MEMORY,
    progress: Progress = SILENT,
) -> None:
    """Estimate each candidate's KL(teacher || child), in nats a token, when it is the only change.

    Args:
        engine: the teacher.
        candidates: what to score.
        weights: their weights.
        batches: the scoring text.
        probes: tokens drawn at every position.
        seed: of the draws.
        done: keys that have an estimate already.
        record: receives each estimate as soon as it is known.
        spool: where hidden states and gradients are kept.
        progress: where to report; the unit is candidates.

    Raises:
        ExecutionError: an estimate is not finite; the message names the candidate.
    """
    waiting = [candidate for candidate in candidates if candidate.key not in done]
    if not waiting:
        return
    trace = TeacherTrace(engine, batches, metric=BlockError(), spool=spool, progress=progress)
    outputs = LayerOutputs(engine, candidates, weights, trace.batches, spool)
    generator = torch.Generator().manual_seed(seed)
    head = find_linear_head(engine)
    gradients = spool.collect(
        probe_gradients(engine, batch, hidden, probes, generator, head=head)
        for batch, hidden in zip(trace.batches, trace.inputs[-1], strict=True)
    )
    first = min(candidate.layer for candidate in waiting)
    with progress.task("Estimating scores", total=len(candidates), unit="candidates") as advance:
        advance(len(candidates) - len(waiting))
        for index in range(engine.num_layers - 1, first - 1, -1):
            mine = {candidate.key: 0.0 for candidate in waiting if candidate.layer == index}
            with torch.no_grad():
                for candidate, place, output in outputs.run(index, trace.inputs[index], mine) if mine else ():
                    change = output.float() - trace.inputs[index + 1][place].float()
                    mine[candidate.key] += _divergence(change, gradients[place])
            for candidate in (candidate for candidate in waiting if candidate.layer == index):
                with naming(candidate):
                    score = require_finite_score(mine[candidate.key] / batches.tokens, "estimated kl")
                record(candidate, score)
                advance(1)
            if index > first:
                gradients = spool.collect(
                    input_gradients(engine, index, batch, hidden, gradient)
                    for batch, hidden, gradient in zip(trace.batches, trace.inputs[index], gradients, strict=True)
                )


def _divergence(change: torch.Tensor, gradients: torch.Tensor) -> float:
    """Return the sum over tokens, in nats; the change is [batch, length, hidden], gradients have probes in front."""
    along = torch.einsum("pbth,bth->pbt", gradients, change)
    quadratic = along.square().mean(0) / 2
    return float(quadratic.log1p().sum(dtype=torch.float64))


def spread_sample(
    candidates: Sequence[Candidate], predicted: Mapping[str, float], count: int, *, part: float = 1.0
) -> list[Candidate]:
    """Choose candidates to score exactly: of each half evenly spread over the order of the predictions, ends included.

    Args:
        candidates: what to choose from.
        predicted: by candidate key.
        count: about how many to choose; a half has at least two, so that it can be judged.
        part: which part of each half's order to spread over, from the best on.
    """
    ordered = sorted(candidates, key=lambda candidate: (predicted[candidate.key], candidate.key))
    halves = [[c for c in ordered if c.half == half] for half in sorted({c.half for c in ordered})]
    chosen: set[str] = set()
    for mine in halves:
        # In proportion, but enough of each to see how far it is off on the whole.
        share = max(round(count * len(mine) / len(ordered)), min(4, count // len(halves)), 2)
        places = np.unique(np.linspace(0, part * (len(mine) - 1), min(share, len(mine))).round().astype(int))
        chosen.update(mine[place].key for place in places)
    return [candidate for candidate in ordered if candidate.key in chosen]


def correct(
    estimates: Mapping[str, float], exact: Mapping[str, float], kinds: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Bring estimates to the scale of exact scores; a candidate that was scored exactly keeps that score.

    Large changes are underestimated, and without the interplay of tokens the removal of an attention looks too harmless against
    that of channels. So the logarithm of the exact score is taken as a line of that of the estimate, with one slope for all and a
    level for each kind of change: the line with the least absolute deviations from the sample.

    Args:
        estimates: by candidate key, not negative.
        exact: by candidate key, a subset of at least two.
        kinds: by candidate key, for instance the half of the layer; a kind with fewer than two exact scores gets the level of
            all together. None takes all for one kind.
    """
    floor = 1e-12
    sample = list(exact)
    known, wanted = (np.log([max(side[key], floor) for key in sample]) for side in (estimates, exact))
    slope, levels = _line(known, wanted, [kinds[key] if kinds else "" for key in sample])
    corrected: dict[str, float] = {}
    for key, value in estimates.items():
        level = levels.get(kinds[key] if kinds else "", levels[""])
        corrected[key] = exact[key] if key in exact else math.exp(level + slope * math.log(max(value, floor)))
    return corrected


def _line(known: np.ndarray, wanted: np.ndarray, kinds: Sequence[str]) -> tuple[float, dict[str, float]]:
    """Return one slope for all kinds and the level of each kind; under "" that of all together."""
    several = sorted({kind for kind in kinds if kinds.count(kind) > 1})
    members = {kind: np.array([kind == other for other in kinds]) for kind in several}
    used = np.isin(kinds, several) if several else np.ones(len(kinds), dtype=bool)
    design = np.stack([*(members.values() or [used]), known], axis=1)[used]
    weights = np.ones(int(used.sum()))
    slope = 1.0
    for _ in range(50):  # iteratively reweighted least squares
        root = np.sqrt(weights)
        solution = np.linalg.lstsq(design * root[:, None], wanted[used] * root, rcond=None)[0]
        weights = 1 / np.maximum(np.abs(design @ solution - wanted[used]), 1e-2)
        slope = float(np.clip(solution[-1], 0.5, 2.0))  # a handful of scores says no more
    rest = wanted - slope * known
    return slope, {"": float(np.median(rest)), **{kind: float(np.median(rest[mine])) for kind, mine in members.items()}}


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's rank correlation; equal values share the mean of their ranks.

    Where one side has no spread there is nothing to agree on: 0.0, or 1.0 when neither has.
    """
    ranks = [_mean_ranks(side) for side in (first, second)]
    spreads = [bool(np.ptp(side)) if len(side) else False for side in ranks]
    if not all(spreads):
        return float(not any(spreads))
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _mean_ranks(values: Sequence[float]) -> np.ndarray:
    _, places, counts = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]
