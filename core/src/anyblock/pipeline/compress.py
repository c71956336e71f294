"""`compress`: from a model and a text to a child under a budget."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyblock.calibration.batches import Batches
from anyblock.checkpoint.atomic import write_bytes_atomic, write_json_atomic
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.config.load import named_things
from anyblock.config.schema import RunConfig
from anyblock.config.yaml_source import write_yaml
from anyblock.contract.trust import trusting
from anyblock.errors import OutputExistsError
from anyblock.execution.environment import opened_executor
from anyblock.modeling.device import resolve_devices
from anyblock.pipeline.disk_space import require_run_space
from anyblock.pipeline.summary import summarise
from anyblock.plugins.commands import installed_entries
from anyblock.progress import SILENT, Event, Progress, recorded
from anyblock.realize.held_out import held_out_every
from anyblock.realize.realize import inputs_hash_of
from anyblock.run.context import RunContext, RunModel
from anyblock.run.model_source import pin_model, read_source
from anyblock.run.run_folder import RunFolder
from anyblock.stages.adapt import Adapted, Adapting, adaptations
from anyblock.stages.candidates import CostedCandidates, keep_candidates, plan_candidates
from anyblock.stages.child import STAGE as CHILD
from anyblock.stages.child import run_child, run_rounded
from anyblock.stages.data import TokenData
from anyblock.stages.evaluation import run_evaluation
from anyblock.stages.further_evaluations import run_further_evaluations
from anyblock.stages.importance import hook_plans, learn, run_importance
from anyblock.stages.measured_check import run_measured_checks
from anyblock.stages.measured_costs import measured_bounds, run_measured_costs
from anyblock.stages.narrow_teacher import narrow_teacher, narrowed_source
from anyblock.stages.refine import run_refine
from anyblock.stages.scores import estimates, run_scores
from anyblock.stages.search import check_reachable, chosen_candidates, run_search
from anyblock.stages.teacher import run_teacher

ESTIMATES_GROUP: Final = "anyblock.estimates"
"""Entry points of functions that take a run folder, and return what gives further fields of the events that it is called with."""

if TYPE_CHECKING:
    from anyblock.candidates.sources import Orders
    from anyblock.evaluation.result import EvaluationResult
    from anyblock.family import ModelFamily
    from anyblock.report.summary import RunSummary
    from anyblock.search.solution import Solution


@dataclass(frozen=True)
class CompressResult:
    """What a run made.

    Attributes:
        child: the child's checkpoint.
        run: the run folder.
        solution: the search's best solution, refined.
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
        ExecutionError: there is too little disk space, or a stage failed.
    """
    with trusting(config.trust_remote_code):
        return _run(config, overwrite=overwrite, progress=progress)


def _run(config: RunConfig, *, overwrite: bool, progress: Progress) -> CompressResult:
    output = Path(config.output)
    run = RunFolder(run_path(config))
    if output.exists() and not overwrite and inputs_hash_of(output) is None:
        raise OutputExistsError(f"{output} is there already", hint="choose another output, or pass --overwrite")
    # Whatever can be refused is refused here, before anything is written.
    device = resolve_devices(config.device)[0].type
    config, folder = pin_model(config, run.path)
    source = read_source(folder)
    _check_names(config, source.family)
    narrow = narrowed_source(config, source)
    costed = plan_candidates(config, narrow, source)
    check_reachable(costed, config.search.bounds(), later=measured_bounds(config))
    plans = hook_plans(config, source)
    data = TokenData(config, source, run)
    if output.exists() and not overwrite and data.calibrates_anew and run.is_finished(CHILD):
        raise OutputExistsError(
            f"{output} is there already, and {run.path} made it from another text",
            hint="choose another output, or pass --overwrite",
        )
    if adaptations(config, source.family):
        held_out_every(data.calibration)
    for note in data.notes:
        progress.note(note)
    require_run_space(run.path, output, source, narrow, config.search.bounds(), costed)
    with (
        opened_executor(config, source.family, run.path, device, progress) as executor,
        run.locked(),
        recorded(run.path / "events.jsonl", progress, _estimates(run.path)) as progress,
    ):
        run.progress = progress
        write_bytes_atomic(run.path / "run.yaml", write_yaml(config.to_dict()))
        keep_candidates(run, costed)
        tokens = data.batches()
        given = RunModel(config, source, run_teacher(config, run, source, progress), progress)
        context = RunContext(config, run, progress, given, given, executor)
        if narrow is source:
            costed = _with_measured(context, costed)
        orders = run_importance(context, plans, tokens["calibration"])
        context.teacher, context.reference = narrow_teacher(context, narrow, plans)
        learn(context)
        if narrow is not source:
            costed = _with_measured(context, costed)
        return _compress(context, costed, orders, tokens, overwrite=overwrite)


def _estimates(run: Path) -> Callable[[Event], Event]:
    """Return what says of an event how long the whole run has left, an extension's; without one, what says nothing."""
    for entry in installed_entries(ESTIMATES_GROUP).values():
        with suppress(Exception):  # a broken extension costs only itself
            found: Callable[[Event], Event] = entry.load()(run)
            return found
    return lambda _: {}


def _check_names(config: RunConfig, family: ModelFamily) -> None:
    """Refuse names that nothing has before any work is done."""
    estimates(config.scoring.method, family.one("metrics", config.scoring.metric))
    for _, kind, name in named_things(config):
        family.one(kind, name)


def run_path(config: RunConfig) -> Path:
    """Return the run folder: `run_dir`, or `OUTPUT.run` next to the output."""
    output = Path(config.output)
    return Path(config.run_dir) if config.run_dir else output.with_name(output.name + ".run")


def _with_measured(context: RunContext, costed: CostedCandidates) -> CostedCandidates:
    """Add measured costs where a budget bounds them, and refuse one that no choice of candidates keeps."""
    costed = run_measured_costs(context, costed)
    check_reachable(costed, context.config.search.bounds())
    return costed


def _compress(
    context: RunContext,
    costed: CostedCandidates,
    orders: Orders,
    tokens: dict[str, Batches],
    *,
    overwrite: bool,
) -> CompressResult:
    config, run, output = context.config, context.run, Path(context.config.output)
    scores = run_scores(context, costed, orders, tokens["scoring"])
    solutions = run_search(run, config.search, costed, scores)
    solution = run_refine(context, costed, orders, tokens["scoring"], solutions[0])
    chosen = chosen_candidates(costed, solution)
    # What is adapted is rounded afterwards: stages that adapt see the weights as they are.
    shapes = [candidate.unrounded for candidate in chosen]
    adapting, adapted = Adapting(context, shapes, orders, tokens["calibration"]), Adapted()
    for name, adaptation in adaptations(config, context.family):
        adapted = adapting.run(name, adaptation, adapted)
    adapting.close()
    outside = {group: solution.choices[group] for group in costed.outside}
    child = run_child(context, chosen, orders, adapted, output, outside=outside, overwrite=overwrite)
    run_measured_checks(context, child, solution.costs)
    shipped = run_rounded(context, child)
    evaluation = run_evaluation(context, shipped, tokens["evaluation"])
    further = run_further_evaluations(context, shipped, tokens["evaluation"])
    summary = summarise(context, costed, solution, child, evaluation, further)
    _write_report(context, summary)
    return CompressResult(child, run.path, solution, evaluation, summary)


def _write_report(context: RunContext, summary: RunSummary) -> None:
    from anyblock.report.markdown import added_section, markdown_report

    run, data, page = context.run, summary.to_dict(), markdown_report(summary)
    write_json_atomic(run.path / "summary.json", data)
    known, names = context.family.named("sections"), context.config.report.sections
    for name in [name for name in known if known[name].by_default] if names is None else names:
        try:
            section = known[name](context.config.section(f"report.{name}", known[name].settings))
            page += added_section(section, context.family.origins("sections")[name], name, data, run.path)
        except Exception as error:  # noqa: BLE001 - the child is finished
            context.progress.note(f"no {name!r} in the report: {' '.join(str(error).split()) or repr(error)}")
    write_bytes_atomic(run.path / "report.md", page.encode())
