"""`compress`: from a model and a text to a child under a budget."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from anyblock.checkpoint.atomic import write_bytes_atomic, write_json_atomic
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.config.schema import RunConfig
from anyblock.errors import OutputExistsError
from anyblock.pipeline.context import RunContext
from anyblock.pipeline.run_folder import RunFolder
from anyblock.pipeline.stages.candidates import run_candidates
from anyblock.pipeline.stages.child import run_child
from anyblock.pipeline.stages.data import run_data
from anyblock.pipeline.stages.importance import run_importance
from anyblock.pipeline.stages.quality import run_evaluation
from anyblock.pipeline.stages.repair import run_repair
from anyblock.pipeline.stages.scores import run_scores
from anyblock.pipeline.stages.solution import chosen_candidates, resolve_budgets, run_search
from anyblock.pipeline.stages.teacher import run_teacher
from anyblock.pipeline.summary import summarise
from anyblock.progress import SILENT, Progress
from anyblock.realize.realize import origin_of

if TYPE_CHECKING:
    from anyblock.evaluation.result import EvaluationResult
    from anyblock.report.summary import RunSummary
    from anyblock.search.solution import Solution


@dataclass(frozen=True)
class CompressResult:
    """What a run made.

    Attributes:
        child: the child's checkpoint.
        run: the run folder.
        solution: the search's best solution.
        evaluation: child against teacher; None when it was switched off.
        summary: everything that the report says.
    """

    child: SubblockCheckpoint
    run: Path
    solution: Solution
    evaluation: EvaluationResult | None
    summary: RunSummary


def compress(config: RunConfig, *, overwrite: bool = False, progress: Progress = SILENT) -> CompressResult:
    """Run every stage that has not been run with the same inputs, and write the child.

    Args:
        config: what to do; see `anyblock.config.load_config`.
        overwrite: replace what is at the output, if it is not this run's own child.
        progress: where to report.

    Raises:
        InputError: the input cannot be used; nothing is written at the output.
        BudgetError: no child keeps the budget; the message says what is reachable.
    """
    output = Path(config.output)
    run = RunFolder(run_path(config))
    if output.exists() and not overwrite and origin_of(output) is None:
        raise OutputExistsError(f"{output} is there already", hint="choose another output, or pass --overwrite")
    with run.locked():
        write_bytes_atomic(run.path / "run.yaml", OmegaConf.to_yaml(OmegaConf.create(config.to_dict())).encode())
        teacher, family = run_teacher(config, run, progress)
        context = RunContext(config, run, teacher, family, progress)
        return _compress(context, output, overwrite=overwrite)


def run_path(config: RunConfig) -> Path:
    """Return the run folder: `run_dir`, or `OUTPUT.run` beside the output."""
    output = Path(config.output)
    return Path(config.run_dir) if config.run_dir else output.with_name(output.name + ".run")


def _compress(context: RunContext, output: Path, *, overwrite: bool) -> CompressResult:
    config, run = context.config, context.run
    costed = run_candidates(context)
    resolve_budgets(config.search.bounds(), costed.teacher)
    data = run_data(context)
    orders = run_importance(context, data["calibration"])
    scores = run_scores(context, costed, orders, data["scoring"])
    solutions = run_search(run, config.search, costed, scores)
    chosen = chosen_candidates(costed, solutions[0])
    repaired, repair_key = run_repair(context, chosen, orders, data["calibration"])
    child = run_child(context, chosen, orders, repaired, repair_key, output, overwrite=overwrite)
    evaluation = run_evaluation(context, child, data["evaluation"])
    summary = summarise(context, costed, solutions[0], child, evaluation)
    _write_report(run, summary)
    return CompressResult(child, run.path, solutions[0], evaluation, summary)


def _write_report(run: RunFolder, summary: RunSummary) -> None:
    from anyblock.report.markdown import markdown_report

    write_json_atomic(run.path / "summary.json", summary.to_dict())
    write_bytes_atomic(run.path / "report.md", markdown_report(summary).encode())
