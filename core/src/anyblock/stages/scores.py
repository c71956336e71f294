"""Stage `scores`: how much each candidate hurts when it is the only change."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyblock.calibration.batches import Batches
from anyblock.candidates.candidate import Candidate
from anyblock.checkpoint.atomic import write_json_atomic
from anyblock.contract.scoring_metric import ScoringMetric
from anyblock.errors import ConfigError
from anyblock.run.context import RunContext
from anyblock.run.run_folder import RunFolder, digest, read_json
from anyblock.run.task_context import TaskContext, compute
from anyblock.scoring.estimate import correct, estimate_scores, rank_correlation, spread_sample
from anyblock.scoring.outside import outside_scores
from anyblock.scoring.replace_one import CandidateScorer
from anyblock.stages.candidates import CostedCandidates

if TYPE_CHECKING:
    from anyblock.candidates.sources import Orders

STAGE: Final = "scores"
KIND: Final = "scores"
"""Of the tasks in which exact scores are computed, one for each layer."""
_SCORES = "scores.json"
_AGREEMENT = "agreement.json"


def run_scores(context: RunContext, costed: CostedCandidates, orders: Orders, batches: Batches) -> dict[str, float]:
    """Return the score of every key of `costed.scored`; what is known is kept at once, exact scores layer by layer."""
    candidates = costed.to_score
    settings = context.config.scoring
    stage = context.run.stage(
        STAGE,
        context.inputs(
            orders=orders,
            batches=batches,
            candidates=[candidate.to_dict() for candidate in candidates],
            settings=settings.to_dict(),
            seed=context.config.seed,
            **({"outside": costed.outside} if costed.outside else {}),
        ),
    )
    if not stage.skipped:
        with stage.run() as folder:
            scores = (
                _estimated(context, candidates, orders, batches, folder)
                if estimates(settings.method, context.metric) and len(candidates) > settings.exact_sample
                else _exact(context, candidates, orders, batches, folder)
            )
            if searched := {group: names for group, names in costed.outside.items() if len(names) > 1}:
                assert context.storage is not None
                scores |= outside_scores(
                    context.teacher.engine,
                    context.storage,
                    searched,
                    batches,
                    metric=context.metric,
                    spool=context.spool(folder),
                    progress=context.progress,
                )
            write_json_atomic(folder / _SCORES, scores)
    return read_scores(context.run)


def estimates(method: str, metric: ScoringMetric | type[ScoringMetric]) -> bool:
    """Return whether most candidates are estimated.

    Raises:
        ConfigError: estimates are asked for, and the metric is not KL.
    """
    if method == "estimated" and not metric.is_kl:
        raise ConfigError(
            "scoring.method=estimated predicts kl, and scoring.metric is another one", hint="use method=exact"
        )
    return metric.is_kl and method != "exact"


def read_scores(run: RunFolder) -> dict[str, float]:
    """Read the finished stage."""
    scores: dict[str, float] = read_json(run.result(STAGE, _SCORES))
    return scores


def scores_belong_to(run: RunFolder, costed: CostedCandidates) -> bool:
    """Return whether the finished stage scored these candidates; a run that started again with other settings has not yet."""
    scored = run.inputs(STAGE)
    own = [candidate.to_dict() for candidate in costed.to_score], costed.outside
    return digest([scored["candidates"], scored.get("outside", {})]) == digest(list(own))


def read_agreement(run: RunFolder) -> dict[str, float] | None:
    """Return how well estimated and exact scores agree in the finished stage; None when all are exact."""
    path = run.result(STAGE, _AGREEMENT)
    return read_json(path) if path.is_file() else None


def _exact(
    context: RunContext,
    candidates: Sequence[Candidate],
    orders: Orders,
    batches: Batches,
    folder: Path,
) -> dict[str, float]:
    shared = {"candidates": [candidate.to_dict() for candidate in candidates]}
    work = TaskContext(context, orders, batches, context.spool(folder), shared)
    count = Counter(candidate.layer for candidate in candidates)
    wanted = [(f"scores of layer {layer} ({count[layer]} candidates)", {"layer": layer}) for layer in sorted(count)]
    scores: dict[str, float] = {}
    with context.progress.task("Scoring candidates", total=len(candidates), unit="candidates") as advance:
        for _, found in compute(work, folder, KIND, "scoring", wanted):
            scores |= found
            advance(len(found))
    return {candidate.key: scores[candidate.key] for candidate in candidates}


def score_layer(work: TaskContext, arguments: Mapping[str, Any]) -> dict[str, float]:
    """Compute a task: the exact scores of one layer's candidates, by key."""
    scorer: CandidateScorer | None = work.kept.get(KIND)
    if scorer is None:
        candidates = [Candidate.from_dict(data) for data in work.shared["candidates"]]
        context = work.context
        scorer = work.kept[KIND] = CandidateScorer(
            context.teacher.engine,
            candidates,
            context.weights(work.orders),
            work.batches,
            metric=context.metric,
            spool=work.spool,
            progress=context.progress,
        )
    return scorer.layer(int(arguments["layer"]))


def _estimated(
    context: RunContext, candidates: Sequence[Candidate], orders: Orders, batches: Batches, folder: Path
) -> dict[str, float]:
    settings = context.config.scoring
    weights = context.weights(orders)
    with _ledger(folder / ".estimates.jsonl") as (estimates, record):
        estimate_scores(
            context.teacher.engine,
            candidates,
            weights,
            batches,
            probes=settings.probes,
            seed=context.config.seed,
            done=set(estimates),
            record=record,
            spool=context.spool(folder),
            progress=context.progress,
        )
    sample = spread_sample(candidates, estimates, settings.exact_sample)
    exact = _exact(context, sample, orders, batches, folder)
    agreement = rank_correlation([estimates[key] for key in exact], list(exact.values()))
    write_json_atomic(folder / _AGREEMENT, {"rank_correlation": agreement, "sample": len(exact)})
    context.progress.note(f"estimates against {len(exact)} exact scores: rank correlation {agreement:.3f}")
    corrected = correct(estimates, exact, {candidate.key: candidate.half for candidate in candidates})
    return {candidate.key: corrected[candidate.key] for candidate in candidates}


Record = Callable[[Candidate, float], None]


@contextmanager
def _ledger(path: Path) -> Iterator[tuple[dict[str, float], Record]]:
    """Give the scores that are known, and a function that adds one and keeps it at once.

    A line that a killed run wrote in part is dropped.
    """
    scores: dict[str, float] = {}
    for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else []:
        if line.endswith(b"\n"):
            row = json.loads(line)
            scores[row["key"]] = row["score"]
    path.write_text("".join(json.dumps({"key": key, "score": score}) + "\n" for key, score in scores.items()))
    with path.open("a", encoding="utf-8") as file:

        def record(candidate: Candidate, score: float) -> None:
            scores[candidate.key] = score
            file.write(json.dumps({"key": candidate.key, "score": score}) + "\n")
            file.flush()

        yield scores, record
