"""Stage `refine`: candidates are scored again around the solution, and the search repeated near it.

Scores of single replacements do not add up, so the first solution is only where to start: each round predicts what every
exchange would change in the child as it is, searches among children that differ in a limited number of subblocks (the
trust region), and keeps the result only if the measured divergence falls. The region shrinks after a failure and grows
after a success.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyblock.calibration.batches import Batches
from anyblock.candidates.candidate import Candidate
from anyblock.checkpoint.atomic import write_json_atomic
from anyblock.errors import BudgetError
from anyblock.pipeline.context import RunContext
from anyblock.pipeline.run_folder import RunFolder, read_json
from anyblock.pipeline.stages.candidates import CostedCandidates
from anyblock.pipeline.stages.solution import build_problem, chosen_candidates
from anyblock.scoring.around import Surroundings
from anyblock.search.budgets import Budget
from anyblock.search.problem import Problem
from anyblock.search.solution import Solution
from anyblock.search.solve import solve_diverse

if TYPE_CHECKING:
    from anyblock.candidates.views import Orders

STAGE = "6-refine"
_FILE = "refinement.json"
_CHANGES: Final = "changed subblocks"
_ENOUGH: Final = 0.005
"""A round that gains less than this share of the divergence is the last."""


@dataclass(frozen=True)
class RefineStep:
    """One round.

    Attributes:
        region: how many subblocks could change.
        changed: how many did.
        predicted: KL(teacher || child) on the scoring text, in nats a token, as the estimates promised.
        measured: what it then was.
        kept: whether this child became the current one.
    """

    region: int
    changed: int
    predicted: float
    measured: float
    kept: bool


@dataclass
class _State:
    choices: dict[str, str]
    divergence: float
    region: int
    steps: list[RefineStep]
    finished: bool = False


def run_refine(
    context: RunContext, costed: CostedCandidates, orders: Orders, batches: Batches, solution: Solution
) -> Solution:
    """Return the refined solution; the given one when refinement is switched off.

    Its `score` is the measured divergence of the child on the scoring text, and its bound stays that of the first search.
    """
    rounds = context.config.search.refine_rounds
    if rounds == 0:
        return solution
    stage = context.run.stage(
        STAGE,
        {
            "teacher": context.teacher.fingerprint(),
            "original": context.original.teacher.fingerprint(),
            "candidates": [[candidate.key, costed.costs[candidate.key]] for candidate in costed.candidates],
            "orders": context.choices_key(orders),
            "tokens": batches.key,
            "batch_size": batches.batch_size,
            "start": solution.choices,
            "budgets": context.config.search.to_dict(),
            "probes": context.config.scoring.probes,
            "seed": context.config.seed,
            "execution": context.execution,
        },
    )
    if not stage.skipped:
        with stage.run() as folder:
            state = _refine(context, costed, orders, batches, solution, folder / ".state.json")
            steps = [asdict(step) for step in state.steps]
            write_json_atomic(
                folder / _FILE, {"choices": state.choices, "divergence": state.divergence, "steps": steps}
            )
    data = read_json(context.run.result(STAGE, _FILE))
    costs = build_problem(costed, _zero(costed), context.config.search.bounds()).costs(data["choices"])
    return replace(solution, choices=data["choices"], score=data["divergence"], costs=costs)


def read_refinement(run: RunFolder) -> list[RefineStep]:
    """Read the rounds of the finished stage."""
    return [RefineStep(**step) for step in read_json(run.result(STAGE, _FILE))["steps"]]


def _refine(
    context: RunContext,
    costed: CostedCandidates,
    orders: Orders,
    batches: Batches,
    solution: Solution,
    path: Path,
) -> _State:
    weights = context.weights(orders)
    surroundings = Surroundings(
        context.engine,
        weights,
        batches,
        probes=context.config.scoring.probes,
        seed=context.config.seed,
        reference=None if context.before is None else context.before.engine,
        spool=context.spool(path.parent),
        progress=context.progress,
    )
    state = _load(path)
    if state is None:
        choice = chosen_candidates(costed, solution)
        state = _State(dict(solution.choices), surroundings.divergence(choice), max(4, len(solution.choices) // 6), [])
        _save(path, state)
    while not state.finished and len(state.steps) < context.config.search.refine_rounds:
        _round(context, costed, surroundings, state)
        _save(path, state)
    return state


def _round(context: RunContext, costed: CostedCandidates, surroundings: Surroundings, state: _State) -> None:
    current = _chosen(costed, state.choices)
    scores = surroundings.neighbours(current, costed.candidates)
    problem = _nearby(context, costed, scores, state)
    settings = context.config.search
    try:
        found = solve_diverse(problem, gap=max(settings.gap, 1e-4), time_limit=settings.time_limit)[0]
    except BudgetError:
        # Nothing this near keeps the budgets, which can only be where the start itself was at their very edge.
        state.finished = True
        return
    changed = sum(found.choices[group] != label for group, label in state.choices.items())
    if not changed:
        state.finished = True
        return
    measured = surroundings.divergence(_chosen(costed, found.choices))
    kept = measured < state.divergence
    gain = (state.divergence - measured) / state.divergence if state.divergence else 0.0
    state.steps.append(RefineStep(state.region, changed, state.divergence + found.score, measured, kept))
    context.progress.note(
        f"refining: {changed} of at most {state.region} subblocks changed, KL {state.divergence:.4f} -> {measured:.4f}"
        f" ({'kept' if kept else 'dropped'})"
    )
    if kept:
        state.choices, state.divergence = dict(found.choices), measured
        state.region = min(state.region * 2, len(state.choices))
        state.finished = gain < _ENOUGH
    else:
        state.region //= 3
        state.finished = state.region == 0


def _nearby(context: RunContext, costed: CostedCandidates, scores: Mapping[str, float], state: _State) -> Problem:
    """Return the search problem around the current choice, with a bound on how many subblocks change."""
    problem = build_problem(costed, dict(scores), context.config.search.bounds(), own_scores=True)
    groups = tuple(
        replace(
            group,
            options=tuple(
                replace(option, costs={**option.costs, _CHANGES: float(option.key != state.choices[group.key])})
                for option in group.options
            ),
        )
        for group in problem.groups
    )
    budgets = (*problem.budgets, Budget(_CHANGES, upper=float(state.region)))
    return Problem(groups, budgets, problem.fixed_costs)


def _chosen(costed: CostedCandidates, choices: Mapping[str, str]) -> Sequence[Candidate]:
    return [candidate for candidate in costed.candidates if choices[candidate.group] == candidate.label]


def _zero(costed: CostedCandidates) -> dict[str, float]:
    return dict.fromkeys((candidate.key for candidate in costed.to_score), 0.0)


def _load(path: Path) -> _State | None:
    if not path.is_file():
        return None
    data = read_json(path)
    return _State(**{**data, "steps": [RefineStep(**step) for step in data["steps"]]})


def _save(path: Path, state: _State) -> None:
    write_json_atomic(path, asdict(state))
