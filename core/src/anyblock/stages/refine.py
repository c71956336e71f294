"""Stage `refine`: candidates are scored again around the solution, and the search repeated near it.

Scores of single replacements do not add up, so the first solution is only where to start: each round predicts what every
exchange would change in the child as it is, alone and together with others, and searches among children that differ in a limited
number of subblocks (the trust region). How far predictions are off on the whole is seen from some exchanges that are measured
before the first round; every exchange that a search picks is measured as well, and the search repeated. A round searches in
several regions, half as wide from one to the next, measures each result, and keeps the best one if the divergence falls. The
next round begins around it with twice the region that did best.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyblock.calibration.batches import Batches
from anyblock.candidates.candidate import Candidate
from anyblock.checkpoint.atomic import write_json_atomic
from anyblock.errors import BudgetError
from anyblock.modeling.finite import finite_or_none, require_finite_child
from anyblock.run.context import RunContext
from anyblock.run.run_folder import RunFolder, read_json
from anyblock.scoring.swaps import ChildScorer, SwapScores
from anyblock.search.budgets import Budget
from anyblock.search.problem import Problem, restrict
from anyblock.search.solution import Solution
from anyblock.search.solve import solve_diverse
from anyblock.stages.candidates import CostedCandidates
from anyblock.stages.search import build_problem, chosen_candidates

if TYPE_CHECKING:
    from anyblock.candidates.sources import Orders

STAGE: Final = "refine"
_FILE = "refinement.json"
_CHANGES: Final = "changed subblocks"
_ENOUGH: Final = 0.005
"""A round that gains less than this share of the divergence is the last."""
_REGIONS: Final = 4
"""How many regions a round tries."""
_PASSES: Final = 8
"""How often the search in one region is repeated at most."""


@dataclass(frozen=True)
class RefineStep:
    """One child that was tried. Divergences are KL(teacher || child) on the scoring text, in nats a token.

    Attributes:
        number: the round.
        region: how many subblocks could change.
        changed: how many did.
        start: the divergence of the child around which was searched.
        predicted: what the estimates promised.
        measured: what it then was; None where the child gave NaN or infinite numbers.
        kept: whether this child became the current one.
    """

    number: int
    region: int
    changed: int
    start: float
    predicted: float
    measured: float | None
    kept: bool


@dataclass
class _State:
    choices: dict[str, str]
    divergence: float
    region: int
    steps: list[RefineStep]
    factors: dict[str, float]
    rounds: int = 0
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
        context.inputs(
            orders=orders,
            batches=batches,
            reference=context.reference.checkpoint.fingerprint(),
            candidates=[[candidate.key, costed.costs[candidate.key]] for candidate in costed.candidates],
            start=solution.choices,
            budgets=context.config.search.to_dict(),
            probes=context.config.scoring.probes,
            measured=context.config.scoring.exact_sample,
            seed=context.config.seed,
        ),
    )
    if not stage.skipped:
        with stage.run() as folder:
            state = _refine(context, costed, orders, batches, solution, folder / ".state.json")
            stage.figures = {"kl": state.divergence, "text": "scoring text"}
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
    scorer = ChildScorer(
        context.teacher.engine,
        context.reference.engine,
        weights,
        batches,
        probes=context.config.scoring.probes,
        seed=context.config.seed,
        spool=context.spool(path.parent),
        progress=context.progress,
    )
    state = _load(path)
    if state is None:
        choice = chosen_candidates(costed, solution)
        start = require_finite_child(scorer.divergence(choice), context.teacher.dtype)
        state = _State(dict(solution.choices), start, max(4, len(solution.choices) // 4), [], {})
        _save(path, state)
    while not state.finished and state.rounds < context.config.search.refine_rounds:
        _round(context, costed, scorer, state)
        _save(path, state)
    return state


def _round(context: RunContext, costed: CostedCandidates, scorer: ChildScorer, state: _State) -> None:
    swaps = scorer.swaps(_chosen(costed, state.choices), costed.candidates)
    if not state.factors:
        swaps.measure(swaps.sample(context.config.scoring.exact_sample))
        state.factors = swaps.factors()
    swaps.calibrate(state.factors)
    tried: dict[frozenset[str], tuple[_Found, float]] = {}
    for region in _regions(state.region):
        found = _search(context, costed, swaps, state, region)
        # A narrower region often gives what a wider one gave.
        if found is not None and found.exchanged and found.exchanged not in tried:
            tried[found.exchanged] = found, scorer.divergence(_chosen(costed, found.choices))
    state.rounds += 1
    if not tried:
        # Nothing near is predicted to be better, or to keep budgets at whose very edge the start is.
        state.finished = True
        return
    best, measured = min(tried.values(), key=lambda pair: pair[1])
    improved = measured < state.divergence
    for found, value in tried.values():
        step = RefineStep(
            number=state.rounds,
            region=found.region,
            changed=len(found.exchanged),
            start=state.divergence,
            predicted=state.divergence + found.change,
            measured=finite_or_none(value),
            kept=improved and found is best,
        )
        state.steps.append(step)
        context.progress.note(
            f"refining {step.number}: {step.changed} of at most {step.region} subblocks changed, KL {step.start:.4f} -> "
            f"{step.predicted:.4f} predicted, {value:.4f} measured ({'kept' if step.kept else 'dropped'})"
        )
    if improved:
        gain = (state.divergence - measured) / state.divergence
        state.region = min(best.region * 2, len(state.choices))
        state.choices, state.divergence = dict(best.choices), measured
        state.finished = gain < _ENOUGH
    else:
        # The same predictions in ever narrower regions did not hold: new ones around the same child would not either.
        state.finished = True


@dataclass(frozen=True)
class _Found:
    """A neighbour of the current child: its choices, the keys of what was exchanged, the predicted change."""

    region: int
    choices: Mapping[str, str]
    exchanged: frozenset[str]
    change: float


def _regions(widest: int) -> Iterator[int]:
    for halving in range(_REGIONS):
        if widest >> halving:
            yield widest >> halving


def _search(
    context: RunContext, costed: CostedCandidates, swaps: SwapScores, state: _State, region: int
) -> _Found | None:
    """Return the child within the region that is predicted best; None when none keeps the budgets.

    What exchanges change together is not a sum, so the search is repeated with what each one changes besides those found before;
    and what was found is measured one by one, so that no exchange is chosen because its prediction is too good.
    """
    settings = context.config.search
    scores, best = swaps.individual(), None
    for _ in range(_PASSES):
        problem = _nearby(context, costed, scores, state, region)
        try:
            solution = solve_diverse(problem, gap=max(settings.gap, 1e-4), time_limit=settings.time_limit)[0]
        except BudgetError:
            return best
        exchanged = frozenset(
            f"{group}:{label}" for group, label in solution.choices.items() if label != state.choices[group]
        )
        new = swaps.unmeasured(exchanged)
        swaps.measure(new)
        found = _Found(region, solution.choices, exchanged, swaps.joint(exchanged))
        if best is not None:  # seen with what has been measured since
            best = replace(best, change=swaps.joint(best.exchanged))
        if found.change < (math.inf if best is None else best.change):
            best = found
        elif not new:
            break
        scores = swaps.given(exchanged)
    return best


def _nearby(
    context: RunContext, costed: CostedCandidates, scores: Mapping[str, float], state: _State, region: int
) -> Problem:
    """Return the search problem around the current choice, with a bound on how many subblocks change."""
    problem = build_problem(costed, {**_zero(costed), **scores}, context.config.search.bounds(), own_scores=True)
    # Embeddings and head are not scored again.
    problem = restrict(problem, fixed={group: state.choices[group] for group in costed.outside}, forbidden={})
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
    budgets = (*problem.budgets, Budget(_CHANGES, upper=float(region)))
    return Problem(groups, budgets, problem.fixed_costs)


def _chosen(costed: CostedCandidates, choices: Mapping[str, str]) -> Sequence[Candidate]:
    return [candidate for candidate in costed.candidates if choices[candidate.group] == candidate.label]


def _zero(costed: CostedCandidates) -> dict[str, float]:
    return dict.fromkeys(costed.scored, 0.0)


def _load(path: Path) -> _State | None:
    if not path.is_file():
        return None
    data = read_json(path)
    return _State(**{**data, "steps": [RefineStep(**step) for step in data["steps"]]})


def _save(path: Path, state: _State) -> None:
    write_json_atomic(path, asdict(state))
