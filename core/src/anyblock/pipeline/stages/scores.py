"""Stage `scores`: how much each candidate hurts when it is the only change."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from anyblock.calibration.batches import Batches
from anyblock.candidates.candidate import Candidate
from anyblock.candidates.views import CandidateWeights
from anyblock.pipeline.context import RunContext
from anyblock.pipeline.run_folder import RunFolder, digest
from anyblock.pipeline.stages.candidates import CostedCandidates
from anyblock.scoring.replace_one import score_candidates

if TYPE_CHECKING:
    from anyblock.candidates.views import Orders

STAGE = "4-scores"
_FILE = "scores.jsonl"


def run_scores(context: RunContext, costed: CostedCandidates, orders: Orders, batches: Batches) -> dict[str, float]:
    """Return `{candidate key: score}`; each score is kept as soon as it is known."""
    candidates = costed.to_score
    stage = context.run.stage(
        STAGE,
        {
            "teacher": context.teacher.fingerprint(),
            "candidates": [candidate.to_dict() for candidate in candidates],
            "orders": {f"{layer}|{kind}": digest(order.tolist()) for (layer, kind), order in sorted(orders.items())},
            "tokens": batches.key,
            "batch_size": batches.batch_size,
            "metric": context.config.scoring.metric,
            "execution": context.execution,
        },
    )
    if not stage.skipped:
        weights = CandidateWeights(context.teacher, context.family, context.text_config, orders)
        with stage.run() as folder:
            path = folder / _FILE
            done = _read_lines(path.read_bytes() if path.is_file() else b"")
            # A line that a killed run wrote in part is dropped, so that the finished file has whole lines only.
            path.write_text("".join(_line(key, score) for key, score in done.items()))
            with path.open("a") as file:

                def record(candidate: Candidate, score: float) -> None:
                    file.write(_line(candidate.key, score))
                    file.flush()

                score_candidates(
                    context.engine,
                    candidates,
                    weights,
                    batches,
                    metric=context.config.scoring.metric,
                    done=done,
                    record=record,
                    progress=context.progress,
                )
    return read_scores(context.run)


def read_scores(run: RunFolder) -> dict[str, float]:
    """Read the finished stage."""
    return _read_lines(run.result(STAGE, _FILE).read_bytes())


def _line(key: str, score: float) -> str:
    return json.dumps({"key": key, "score": score}) + "\n"


def _read_lines(data: bytes) -> dict[str, float]:
    found: dict[str, float] = {}
    for line in data.splitlines(keepends=True):
        if line.endswith(b"\n"):
            row = json.loads(line)
            found[row["key"]] = row["score"]
    return found
