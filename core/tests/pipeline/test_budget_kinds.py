"""Every kind of budget in every form of it, on real candidates, against trying every child.

A child's costs are not added up here: they are counted on its block configs and shapes as those of a model of its own.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock.candidates.candidate import child_blocks
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.candidates.sources import PlannedTeacher
from anyblock.config import RunConfig
from anyblock.costs.cost_model import model_costs
from anyblock.errors import BudgetError
from anyblock.run.model_source import Source, read_source
from anyblock.search.solution import Solution
from anyblock.search.solve import solve, solve_diverse
from anyblock.stages.candidates import CostedCandidates, plan_candidates, scenario_of
from anyblock.stages.search import build_problem, chosen_candidates
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BATCH, LENGTH, GENERATED = 3, 40, 8
SEARCH = {"batch": BATCH, "length": LENGTH, "generated": GENERATED, "cache_dtype": "float32"}
COUNTED = (
    "params",
    "active_params",
    "memory",
    "weight_memory",
    "kv_memory",
    "kv_heads",
    "attention_layers",
    "ffn_layers",
)
KINDS = {"llama": (*COUNTED, "latency", "throughput"), "mixtral": (*COUNTED, "experts", "latency", "throughput")}


@dataclass(frozen=True)
class Children:
    """A model's candidates and every child that can be made of them.

    Attributes:
        costed: the candidates.
        every: `(choices, costs)` of each child, `throughput` in tokens a second among the costs.
    """

    costed: CostedCandidates
    every: list[tuple[dict[str, str], dict[str, float]]]

    @property
    def teacher(self) -> dict[str, float]:
        return next(costs for choices, costs in self.every if set(choices.values()) == {"teacher"})


def every_child(config: RunConfig, source: Source) -> Children:
    costed = plan_candidates(config, source, source)
    # As if they had been timed: no two candidates of a group take equally long, and none is free.
    times = {
        c.key: 0.25 + costed.costs[c.key]["params"] / 1000 + index / 64 for index, c in enumerate(costed.candidates)
    }
    costs = {key: {**values, "latency": times[key]} for key, values in costed.costs.items()}
    whole = 1.5 + sum(times[c.key] for c in costed.candidates if c.kind == "teacher")
    fixed, reference = {**costed.fixed, "latency": 1.5}, {**costed.reference, "latency": whole}
    costed = replace(costed, costs=costs, fixed=fixed, reference=reference)
    by_group: dict[str, list[Any]] = {}
    for candidate in costed.candidates:
        by_group.setdefault(candidate.group, []).append(candidate)
    scenario = scenario_of(config, source)
    family, text, blocks = source.family, source.text_config, source.block_configs
    weights = CandidateWeights(PlannedTeacher(blocks), family, text, {})
    shapes = {c.key: weights.shapes(c, source.shapes[c.group]) for c in costed.candidates}
    every = []
    for chosen in itertools.product(*by_group.values()):
        tensors = {**source.shapes, **{c.group: shapes[c.key] for c in chosen}}
        found = dict(model_costs(family, source.config, child_blocks(blocks, chosen), tensors, scenario).total)
        found["latency"] = 1.5 + sum(times[c.key] for c in chosen)
        found["throughput"] = BATCH * GENERATED / found["latency"] * 1000
        every.append(({c.group: c.label for c in chosen}, found))
    return Children(costed, every)


@pytest.fixture(scope="module", params=KINDS)
def model(
    request: pytest.FixtureRequest, llama_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Children]:
    pruning: dict[str, Any] = {"ffn": {"sizes": [0.5]}, "kv_heads": {"sizes": [1]}}
    folder = llama_dir
    if request.param == "mixtral":
        pytest.importorskip("anyblock_mixtral")
        from transformers import MixtralConfig, MixtralForCausalLM

        torch.manual_seed(0)
        small = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2}
        folder = tmp_path_factory.mktemp("models") / "mixtral"
        MixtralForCausalLM(MixtralConfig(**small, **heads, sliding_window=16)).save_pretrained(folder)
        pruning = {"experts_removal": {"sizes": [2, 3]}, "kv_heads": {"sizes": [1]}}
    config = RunConfig.model_validate({"model": str(folder), "output": "child", "pruning": pruning, "search": SEARCH})
    return request.param, every_child(config, read_source(folder))


def test_costs_of_candidates_add_up_to_those_of_the_child(model: tuple[str, Children]) -> None:
    kind, children = model
    problem = build_problem(children.costed, scores_of(children, 0), budgets_of({"params": "1x"}))
    assert {name for name in KINDS[kind] if name != "throughput"} <= set(problem.costs(children.every[0][0]))
    for choices, costs in children.every:
        assert problem.costs(choices) == pytest.approx({name: costs[name] for name in problem.costs(choices)})


def scores_of(children: Children, seed: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(seed)
    keys = [candidate.key for candidate in children.costed.to_score]
    return dict(zip(keys, torch.rand(len(keys), generator=generator, dtype=torch.float64).tolist(), strict=True))


def budgets_of(texts: dict[str, str]) -> Any:
    config = RunConfig.model_validate({"model": "m", "output": "o", "search": {**SEARCH, "budget": texts}})
    return config.search.bounds()


FORMS: dict[str, Callable[[float, float, float], tuple[str, float, float]]] = {
    "number": lambda low, high, _: (f"{high!r}", -1.0, high),
    "upper": lambda low, high, _: (f"<={high!r}", -1.0, high),
    "lower": lambda low, high, _: (f">={low!r}", low, float("inf")),
    "range": lambda low, high, _: (f"{low!r}..{high!r}", low, high),
    "share": lambda low, high, own: (f"<={high / own!r}x", -1.0, high / own * own),
    "percent": lambda low, high, own: (f"<={high / own * 100!r}%", -1.0, high / own * 100 / 100 * own),
    "share range": lambda low, high, own: (f"{low / own!r}x..{high / own!r}x", low / own * own, high / own * own),
}


@st.composite
def wanted(draw: st.DrawFn, kinds: tuple[str, ...]) -> list[tuple[str, str, float, float]]:
    chosen = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3, unique=True))
    if {"latency", "throughput"} <= set(chosen):
        chosen.remove("throughput")
    places = st.tuples(st.integers(1, 40), st.integers(1, 40)).map(sorted)
    return [(kind, draw(st.sampled_from(sorted(FORMS))), *draw(places)) for kind in chosen]


def as_budget(children: Children, kind: str, form: str, low: float, high: float) -> tuple[str, float, float]:
    """Return a budget's text and what it allows; bounds lie between two reachable values or on one."""
    values = sorted({costs[kind] for _, costs in children.every})
    top = values[-1] * 1.05 + 1
    number = 1 if kind == "throughput" else 0  # a bare number bounds it from below
    bounds = [max(place / 40 * top, 1e-6) for place in (low, high)]
    text, lower, upper = FORMS[form](bounds[0], bounds[1], children.teacher[kind])
    if number and form == "number":
        lower, upper = bounds[1], float("inf")
    return text, lower, upper


@settings(
    deadline=None, derandomize=True, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), seed=st.integers(0, 5))
def test_the_best_child_within_any_budgets_is_found(
    model: tuple[str, Children], data: st.DataObject, seed: int
) -> None:
    name, children = model
    drawn = data.draw(wanted(KINDS[name]))
    texts, allowed = {}, {}
    for kind, form, low, high in drawn:
        texts[kind], *bounds = as_budget(children, kind, form, low, high)
        allowed[kind] = bounds
    scores = scores_of(children, seed)
    problem = build_problem(children.costed, scores, budgets_of(texts))

    def keeps(costs: dict[str, float], only: str | None = None) -> bool:
        # As wide as the rounding of a sum of floats: counts are whole numbers, on which it has no effect.
        return all(
            lower - 1e-12 * abs(lower) <= costs[kind] <= upper + 1e-12 * abs(upper)
            for kind, (lower, upper) in allowed.items()
            if only in (None, kind)
        )

    kept = [(choices, costs) for choices, costs in children.every if keeps(costs)]
    if kept:
        best = min(problem.score(choices) for choices, _ in kept)
        found: Solution = solve(problem)
        assert found.status == "proven"
        assert found.score == pytest.approx(best, rel=1e-12, abs=1e-12)
        assert any(found.choices == choices for choices, _ in kept)
        assert chosen_candidates(children.costed, found)
        near = solve_diverse(problem, gap=1e-3)[0]
        assert keeps(next(costs for choices, costs in children.every if choices == near.choices))
        assert near.bound <= best * (1 + 1e-12) + 1e-12 <= near.score * (1 + 1e-12) + 2e-12
        return
    with pytest.raises(BudgetError) as caught:
        solve(problem)
    # Every bound is in the report, with the nearest value that is reachable when it is the only one.
    for kind, (lower, upper) in allowed.items():
        cost = "latency" if kind == "throughput" else kind
        assert re.search(rf"^  {cost} [<>]= ", str(caught.value), re.MULTILINE), str(caught.value)
        if lower > 0 and upper < float("inf"):
            continue  # a range's report is held to every choice in tests/search/test_reach.py
        values = [costs[cost] for _, costs in children.every]
        is_upper = (upper < float("inf")) != (kind == "throughput")
        wording, nearest = ("smallest", min(values)) if is_upper else ("largest", max(values))
        told = re.search(
            rf"^  {cost} [<>]= .*the {wording} reachable value is ([0-9.e+]+)", str(caught.value), re.MULTILINE
        )
        assert told, str(caught.value)
        assert float(told[1].rstrip(".")) == pytest.approx(nearest, rel=1e-12)
