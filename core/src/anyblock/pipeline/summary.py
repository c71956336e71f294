"""What a run did, as the report's plain data."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING

from anyblock.checkpoint.hub import recorded_origin
from anyblock.config.schema import RunConfig
from anyblock.costs.registry import CandidateCosts
from anyblock.pipeline.context import RunContext
from anyblock.pipeline.run_folder import STAGES
from anyblock.pipeline.stages.adapt import read_adaptation
from anyblock.pipeline.stages.candidates import CostedCandidates, scenario_of
from anyblock.pipeline.stages.distill import BLOCKS, MODEL
from anyblock.pipeline.stages.latency import latency_scenario, wants_latency
from anyblock.pipeline.stages.latency_check import read_latency_check
from anyblock.pipeline.stages.refine import STAGE as REFINE
from anyblock.pipeline.stages.refine import read_refinement
from anyblock.pipeline.stages.repair import STAGE as REPAIR
from anyblock.pipeline.stages.scores import read_agreement
from anyblock.pipeline.stages.search import resolve_budgets
from anyblock.report.summary import BudgetLine, RunSummary, SearchLine, StageLine

if TYPE_CHECKING:
    from anyblock.checkpoint.subblocks import SubblockCheckpoint
    from anyblock.evaluation.result import EvaluationResult
    from anyblock.search.solution import Solution


def summarise(
    context: RunContext,
    costed: CostedCandidates,
    solution: Solution,
    child: SubblockCheckpoint,
    evaluation: EvaluationResult | None,
) -> RunSummary:
    """Return everything that the report says about a finished run."""
    config = context.config
    budgets = resolve_budgets(config.search.bounds(), costed.teacher)
    scenario = scenario_of(config, context.source)
    return RunSummary(
        command=_command(config),
        teacher=config.model,
        model_type=context.family.model_type,
        block_configs=[block.to_dict() for block in child.block_configs],
        teacher_block_configs=[block.to_dict() for block in context.teacher.block_configs],
        budgets=tuple(BudgetLine(b.cost, solution.costs[b.cost], b.upper, b.lower) for b in budgets),
        costs=_plain(solution.costs),
        teacher_costs=_plain(costed.teacher),
        search=SearchLine(
            solution.status, solution.score, solution.bound, solution.gap, config.scoring.metric, solution.seconds
        ),
        quality=None if evaluation is None else evaluation.to_dict(),
        stages=_stages(context),
        scenario={
            "batch": scenario.batch_size,
            "length": scenario.length,
            "cache dtype": scenario.cache_dtype,
            **({"generated": config.search.generated_tokens} if wants_latency(config) else {}),
        },
        notes=tuple(_notes(context)),
        versions={
            "anyblock": version("anyblock"),
            context.family.distribution: context.family.version,
            **{name: version(name) for name in ("torch", "transformers")},
        },
        origin=recorded_origin(context.source.path),
    )


def _command(config: RunConfig) -> str:
    budgets = [f"--budget {cost}={value}" for cost, value in config.search.budget.items()]
    return shlex.join(["anyblock", "compress", config.model, config.output, *" ".join(budgets).split()]) + (
        f" --data {shlex.quote(config.data.path)}" if config.data.path else ""
    )


def _notes(context: RunContext) -> Iterator[str]:
    if context.before is not None:
        before, after = context.before.text_config.hidden_size, context.text_config.hidden_size
        yield (
            f"The hidden size was cut from {before} to {after} before the search. Scores of single candidates are within the "
            "narrower model; refinement and evaluation compare with the model as it was given."
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
            f"{step.start:.4f}, predicted {step.predicted:.4f}, measured {step.measured:.4f}; "
            f"{'kept' if step.kept else 'dropped'}."
        )
    check = read_latency_check(context)
    if check is not None:
        scenario = latency_scenario(context.config.search)
        yield (
            f"Latency: {check.predicted:.4g} ms predicted from subblocks measured on this device and a whole teacher (factor "
            f"{check.teacher_factor:.3f}), {check.measured:.4g} ms measured on the child: error {check.error:+.1%}, calibration "
            f"factor {check.factor:.3f}."
        )
        if scenario.generated:
            yield f"Throughput: {scenario.throughput(check.measured):.4g} generated tokens a second, prefill included."
    repaired = read_adaptation(context.run, REPAIR) if context.config.pruning.repair.method != "none" else None
    if repaired is not None and repaired.lines:
        lines = repaired.lines
        helped = [line for line in lines if line["ridge"] is not None]
        before, after = (sum(line[name] for line in lines) / len(lines) for name in ("plain_error", "error"))
        yield (
            f"{len(helped)} of {len(lines)} narrowed subblocks were re-fitted by least squares; the relative error of their "
            f"outputs on held-out tokens went from {before:.3f} to {after:.3f} on average."
        )
    trained = read_adaptation(context.run, BLOCKS) if context.config.distillation.blocks.enabled else None
    if trained is not None and trained.lines:
        helped = [line for line in trained.lines if line["epoch"]]
        before, after = (sum(line[name] for line in trained.lines) / len(trained.lines) for name in ("before", "after"))
        yield (
            f"{len(helped)} of {len(trained.lines)} changed layers were trained one by one; the relative error of their outputs "
            f"on held-out tokens went from {before:.3f} to {after:.3f} on average."
        )


def _plain(costs: CandidateCosts) -> dict[str, float]:
    return {name: float(value) for name, value in costs.items()}


def _stages(context: RunContext) -> tuple[StageLine, ...]:
    lines = []
    distillation = context.config.distillation
    unused = {BLOCKS: not distillation.blocks.enabled, MODEL: not distillation.model.enabled}
    for name in STAGES:
        if unused.get(name) or not context.run.is_finished(name):  # one that is unused may be left from an earlier run
            continue
        data = context.run.done(name)
        lines.append(
            StageLine(
                name,
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
        return f"KL on the scoring text {steps[0].start:.4f} to {kept[-1] if kept else steps[0].start:.4f}"
    found = read_adaptation(context.run, stage)
    if found is None:
        return ""
    return f"KL on held-out text {found.before:.4f} to {found.after:.4f}" + ("" if found.kept else ", dropped")
