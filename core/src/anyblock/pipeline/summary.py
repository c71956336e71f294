"""What a run did, as the report's plain data."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from anyblock.checkpoint.hub import recorded_origin
from anyblock.config.schema import RunConfig
from anyblock.contract.adaptation import Adaptation
from anyblock.contract.cost import Rate
from anyblock.contract.storage_type import STORAGE
from anyblock.costs.registry import CandidateCosts, known_costs
from anyblock.export.export import formats_of
from anyblock.export.exported_child import ExportedChild
from anyblock.report.format import quantity
from anyblock.report.summary import BudgetLine, RunSummary, SearchLine, StageLine
from anyblock.run.context import RunContext
from anyblock.stages.adapt import AdaptationResult, adaptations, read_adaptation, stage_of
from anyblock.stages.candidates import CostedCandidates, scenario_of
from anyblock.stages.measured_check import read_measured_checks
from anyblock.stages.measured_costs import measured_bounds
from anyblock.stages.refine import STAGE as REFINE
from anyblock.stages.refine import read_refinement
from anyblock.stages.scores import read_agreement
from anyblock.stages.search import resolve_budgets

if TYPE_CHECKING:
    from anyblock.checkpoint.subblocks import SubblockCheckpoint
    from anyblock.contract.evaluation import Figure
    from anyblock.evaluation.result import EvaluationResult
    from anyblock.search.solution import Solution


def summarise(
    context: RunContext,
    costed: CostedCandidates,
    solution: Solution,
    child: SubblockCheckpoint,
    evaluation: EvaluationResult | None,
    further: Mapping[str, Sequence[Figure]],
) -> RunSummary:
    """Return everything that the report says about a finished run."""
    config = context.config
    budgets = resolve_budgets(config.search.bounds(), costed.reference)
    scenario = scenario_of(config, context.reference.source)
    return RunSummary(
        command=_command(config),
        teacher=config.model,
        model_type=context.family.model_type,
        block_configs=[block.to_dict() for block in child.block_configs],
        teacher_block_configs=[block.to_dict() for block in context.teacher.source.block_configs],
        budgets=tuple(BudgetLine(b.cost, solution.costs[b.cost], b.upper, b.lower) for b in budgets),
        costs=_plain(solution.costs),
        teacher_costs=_plain(costed.reference),
        search=SearchLine(
            solution.status, solution.score, solution.bound, solution.gap, config.scoring.metric, solution.seconds
        ),
        quality=None if evaluation is None else evaluation.to_dict(),
        evaluations={name: [figure.to_dict() for figure in figures] for name, figures in further.items()} or None,
        formats=formats_of(ExportedChild(child, context.family)),
        stages=_stages(context),
        scenario={
            "batch": scenario.batch_size,
            "length": scenario.length,
            "cache dtype": scenario.cache_dtype,
            **({"generated": config.search.generated_tokens} if measured_bounds(config) else {}),
        },
        notes=tuple(_notes(context, child)),
        versions={
            "anyblock": version("anyblock"),
            context.family.distribution: context.family.version,
            **{name: version(name) for name in ("torch", "transformers")},
        },
        origin=recorded_origin(context.reference.source.path),
    )


def _command(config: RunConfig) -> str:
    budgets = [f"--budget {cost}={value}" for cost, value in config.search.budget.items()]
    return shlex.join(["anyblock", "compress", config.model, config.output, *" ".join(budgets).split()]) + (
        f" --data {shlex.quote(config.data.path)}" if isinstance(config.data.path, str) else ""
    )


def _notes(context: RunContext, child: SubblockCheckpoint) -> Iterator[str]:
    if context.teacher is not context.reference:
        before, after = (model.text_config.hidden_size for model in (context.reference, context.teacher))
        yield (
            f"The hidden size was cut from {before} to {after} before the search. Scores of single candidates are within the "
            "narrower model; refinement and evaluation compare with the model as it was given."
        )
    if stated := child.config.get(STORAGE):
        counts = Counter(
            (group.rpartition("_")[2], name) for group, name in stated["types"].items() if "block" in group
        )
        listed = ", ".join(f"{count} {half} in {name}" for (half, name), count in sorted(counts.items()))
        outside = stated["types"]["embeddings"]
        yield (
            f"Storage types for the format {stated['format']}: {listed}; the rest in {outside}. Scores and evaluation are of "
            "weights that were rounded to them; the child's folder has the weights as they were before."
        )
    agreement = read_agreement(context.run)
    if agreement is not None:
        yield (
            f"Scores are estimates, corrected by {agreement['sample']:.0f} exact ones; the rank correlation of the two is "
            f"{agreement['rank_correlation']:.3f}."
        )
    steps = read_refinement(context.run) if context.config.search.refine_rounds else []
    for step in steps:
        yield (
            f"Refinement {step.number}: {step.changed} subblocks exchanged (at most {step.region}), KL on the scoring text "
            f"{step.start:.4f}, predicted {step.predicted:.4f}, measured {_kl(step.measured)}; "
            f"{'kept' if step.kept else 'dropped'}."
        )
    yield from _measured(context)
    for name, adaptation in adaptations(context.config, context.family):
        found = read_adaptation(context.run, stage_of(name))
        if found is not None:
            yield from _adaptation(name, adaptation, found)


def _measured(context: RunContext) -> Iterator[str]:
    """Yield how far predictions of measured costs were from the child, and the rates that follow from the measurements."""
    known = known_costs()
    for name, check in read_measured_checks(context).items():
        predicted, measured = (quantity(value, known[name].unit) for value in (check.predicted, check.measured))
        yield (
            f"{name.capitalize()}: {predicted} predicted from subblocks measured on this device and a whole teacher (factor "
            f"{check.teacher_factor:.3f}), {measured} measured on the child: error {check.error:+.1%}, calibration "
            f"factor {check.factor:.3f}."
        )
        for other, rate in known.items():
            if issubclass(rate, Rate) and rate.of == name and (amount := rate().amount(context.config.search.scenario)):
                yield f"{other.capitalize()}: {amount / check.measured:.4g} {rate.unit}."


def _adaptation(name: str, adaptation: Adaptation, found: AdaptationResult) -> Iterator[str]:
    """Say what a stage did to the child's weights, or why it was dropped, and which trainings diverged."""
    lines = found.lines
    if not found.kept and (lines or found.diverged):
        yield (
            f"The stage {name} was {found.outcome} ({_kl(found.before)} to {_kl(found.after)}); the child has the weights from "
            "before it."
        )
    elif text := adaptation.describe(lines):
        yield text
    for line in lines:
        if line.get("diverged"):
            what = f"layer {line['layer']}" if "layer" in line else "the model"
            kept = f"the weights of epoch {line['epoch']} are kept" if line["epoch"] else "its training is dropped"
            yield f"{name}: {what} diverged in epoch {line['diverged']} (NaN or infinite numbers); {kept}."


def _plain(costs: CandidateCosts) -> dict[str, float]:
    return {name: float(value) for name, value in costs.items()}


def _stages(context: RunContext) -> tuple[StageLine, ...]:
    lines = []
    for name in context.run.used:
        data = context.run.done(name)
        lines.append(
            StageLine(
                name.rpartition(":")[2],
                data["seconds"],
                reused=name not in context.run.ran,
                memory=data.get("peak_memory"),
                quality=_quality(context, name),
            )
        )
    return tuple(lines)


def _quality(context: RunContext, stage: str) -> str:
    """Return what a stage did to the child, as far as it measured it."""
    if stage == REFINE and (steps := read_refinement(context.run)):
        kept = [step.measured for step in steps if step.kept]
        return f"KL on the scoring text {steps[0].start:.4f} to {_kl(kept[-1] if kept else steps[0].start)}"
    found = read_adaptation(context.run, stage)
    if found is None:
        return ""
    return f"KL on held-out text {_kl(found.before)} to {_kl(found.after)}" + ("" if found.kept else ", dropped")


def _kl(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"
