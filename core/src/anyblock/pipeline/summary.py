"""What a run did, as the report's plain data."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING

from anyblock.checkpoint.hub import recorded_origin
from anyblock.config.schema import RunConfig
from anyblock.costs.names import CandidateCosts
from anyblock.pipeline.context import RunContext
from anyblock.pipeline.run_folder import read_json
from anyblock.pipeline.stages.candidates import CostedCandidates, scenario_of
from anyblock.pipeline.stages.latency import latency_scenario, wants_latency
from anyblock.pipeline.stages.latency_check import read_latency_check
from anyblock.pipeline.stages.refine import read_refinement
from anyblock.pipeline.stages.repair import read_repair
from anyblock.pipeline.stages.scores import read_agreement
from anyblock.pipeline.stages.solution import resolve_budgets
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
    for number, step in enumerate(steps, 1):
        yield (
            f"Refinement {number}: {step.changed} subblocks exchanged, KL on the scoring text predicted {step.predicted:.4f}, "
            f"measured {step.measured:.4f}; {'kept' if step.kept else 'dropped'}."
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
    lines = read_repair(context.run) if context.config.pruning.repair.method != "none" else []
    if lines:
        helped = [line for line in lines if line.ridge is not None]
        before, after = (sum(getattr(line, name) for line in lines) / len(lines) for name in ("plain_error", "error"))
        yield (
            f"{len(helped)} of {len(lines)} narrowed subblocks were re-fitted by least squares; the relative error of their "
            f"outputs on held-out tokens went from {before:.3f} to {after:.3f} on average."
        )


def _plain(costs: CandidateCosts) -> dict[str, float]:
    return {name: float(value) for name, value in costs.items()}


def _stages(context: RunContext) -> tuple[StageLine, ...]:
    lines = []
    for done in sorted(context.run.path.glob("stages/*/stage.json")):
        name = done.parent.name
        lines.append(StageLine(name.partition("-")[2], read_json(done)["seconds"], reused=name not in context.run.ran))
    return tuple(lines)
