"""Time the search on problems shaped like those of large models, on one thread, and check the targets.

Costs are the same in every layer, as in a real model, which is what makes the proof hard: a great many choices cost exactly
the same. Two shapes: `halves` has one group for the attention and one for the FFN of every layer, which is what AnyBlock
solves; `product` has one group a layer, with every pair of an attention and an FFN size. Parameters and key-value heads are
whole numbers; latency has 5 % of noise in every layer. `same` is `product` with one noise for all layers, as the measured times
of equal subblocks have: there, all costs of all layers are equal. Further budgets are set below what the solution for
parameters alone uses, so that most of them bind. `tangled` is unlike any model: every option has random costs that trade off
against one another.

    python core/benchmarks/search.py --seeds 5 --json result.json

`cpu` is process time, the number to compare on a busy machine; `wall` includes waiting for a core. The exit code is 1 when
a target is missed.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import json
import math
import random
import statistics
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from anyblock.search import Budget, Group, Option, Problem, Solution, solve

HIDDEN, FFN, HEADS, HEAD_DIM = 8192, 28672, 64, 128
MORE_BUDGETS = {"latency": 0.985, "kv_heads": 0.9}
"""By which factor each further budget is below what the best choice for parameters alone uses."""


@dataclass(frozen=True)
class Case:
    """A shape, how it is solved, and what is expected of it.

    Attributes:
        shape: `halves`, `product`, `same` or `tangled`.
        layers: number of layers.
        attention: attention sizes a layer.
        ffn: FFN sizes a layer.
        budgets: 1 for parameters, 2 with latency, 3 with key-value heads.
        gap: relative gap to reach.
        seconds: time limit.
        target: seconds within which the gap has to be reached; None for no target.
    """

    shape: str
    layers: int
    attention: int
    ffn: int
    budgets: int
    gap: float
    seconds: float
    target: float | None = None

    def __str__(self) -> str:
        groups = self.layers * (2 if self.shape == "halves" else 1)
        options = f"{self.attention}+{self.ffn}" if self.shape == "halves" else str(self.attention * self.ffn)
        return f"{self.shape} {groups} groups x {options}, {self.budgets} budget{'s' * (self.budgets > 1)}, gap {self.gap:g}"


CASES = [
    Case("halves", 30, 10, 10, 1, 1e-6, 10, target=0.2),
    Case("halves", 30, 10, 10, 3, 1e-6, 20),
    Case("halves", 126, 9, 20, 1, 1e-6, 10, target=5),
    Case("halves", 126, 9, 20, 2, 1e-6, 20),
    Case("halves", 126, 9, 20, 3, 1e-3, 10, target=10),
    Case("halves", 126, 9, 20, 3, 1e-6, 20),
    Case("product", 32, 6, 10, 1, 1e-6, 10),
    Case("product", 32, 6, 10, 3, 1e-6, 20),
    Case("product", 80, 10, 10, 1, 1e-6, 10),
    Case("product", 80, 10, 10, 3, 1e-3, 10, target=10),
    Case("product", 80, 10, 10, 3, 1e-6, 20),
    Case("product", 126, 10, 20, 1, 1e-6, 10, target=5),
    Case("product", 126, 10, 20, 3, 1e-3, 10),
    Case("product", 256, 20, 25, 1, 1e-6, 20),
    Case("product", 256, 20, 25, 3, 1e-3, 20),
    Case("same", 80, 10, 10, 3, 1e-3, 10, target=10),
    Case("same", 80, 10, 10, 3, 1e-6, 20),
    Case("same", 126, 10, 20, 1, 1e-6, 10, target=5),
    Case("tangled", 80, 10, 10, 3, 1e-3, 20),
]


def sizes(kind: str, count: int, dice: random.Random, times: random.Random) -> list[Option]:
    """Return the options of one half of one layer, from removed to whole."""
    importance = dice.lognormvariate(0.0, 0.7) * (0.4 if kind == "attention" else 1.0)
    options = []
    for place in range(count):
        kept = place / (count - 1)
        if kind == "attention":
            heads = round(kept * HEADS)
            params = (2 * HEADS + 2 * heads) * HIDDEN * HEAD_DIM if heads else 0
            time_ms = 0.4 * (0.5 + 0.5 * kept) if heads else 0.0
        else:
            heads, params, time_ms = 0, 3 * HIDDEN * (round(kept * FFN) // 128 * 128), kept
        score = importance * (1 - kept) ** 2 * dice.uniform(0.9, 1.1)
        costs = {"params": float(params), "kv_heads": float(heads), "latency": time_ms * times.uniform(0.95, 1.05)}
        options.append(Option(f"{kind}={place:02d}", score, costs))
    return options


def pairs(attention: list[Option], ffn: list[Option], dice: random.Random) -> list[Option]:
    """Return every pair of an attention and an FFN size as one option, whose score is not quite their sum."""
    return [
        Option(
            f"{a.key},{f.key}",
            (a.score + f.score) * dice.uniform(0.95, 1.05),
            {cost: a.costs[cost] + f.costs[cost] for cost in a.costs},
        )
        for a in attention
        for f in ffn
    ]


def tangled(case: Case, dice: random.Random) -> Problem:
    """Return a problem with random costs, and scores that fall with every one of them."""
    names = ("params", *MORE_BUDGETS)[: case.budgets]
    groups = []
    for layer in range(case.layers):
        importance = dice.lognormvariate(0.0, 0.5)
        options = []
        for place in range(case.attention * case.ffn):
            costs = {name: dice.random() for name in names}
            score = importance * math.exp(-sum(costs.values())) * dice.uniform(0.8, 1.2)
            options.append(Option(f"{place:03d}", score, costs))
        groups.append(Group(f"block_{layer:03d}", tuple(options)))
    return Problem(tuple(groups), tuple(Budget(name, upper=0.5 * case.layers) for name in names))


def make(case: Case, seed: int) -> Problem:
    """Return the problem of a case."""
    dice = random.Random(seed)
    if case.shape == "tangled":
        return tangled(case, dice)
    groups = []
    for layer in range(case.layers):
        times = random.Random(seed) if case.shape == "same" else dice
        attention, ffn = (sizes(kind, getattr(case, kind), dice, times) for kind in ("attention", "ffn"))
        if case.shape == "halves":
            groups.append(Group(f"block_{layer:03d}_attention", tuple(attention), "attention"))
            groups.append(Group(f"block_{layer:03d}_ffn", tuple(ffn), "ffn"))
        else:
            groups.append(Group(f"block_{layer:03d}", tuple(pairs(attention, ffn, dice))))
    whole = sum(max(option.costs["params"] for option in group.options) for group in groups)
    problem = Problem(tuple(groups), (Budget("params", upper=0.55 * whole),))
    if case.budgets == 1:
        return problem
    alone = solve(problem).costs
    further = [Budget(cost, upper=factor * alone[cost]) for cost, factor in MORE_BUDGETS.items()]
    return replace(problem, budgets=(*problem.budgets, *further[: case.budgets - 1]))


@dataclass(frozen=True)
class Run:
    """One solved problem."""

    seed: int
    wall: float
    cpu: float
    gap: float
    status: str
    score: float
    nodes: int
    binding: int


def measure(case: Case, seed: int) -> Run:
    """Solve one problem."""
    problem = make(case, seed)
    wall, cpu = time.perf_counter(), time.process_time()
    found: Solution = solve(problem, gap=case.gap, time_limit=case.seconds)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    binding = sum(price > 0 for price in found.prices.values())
    return Run(seed, wall, cpu, found.gap, found.status, found.score, found.nodes, binding)


def missed(case: Case, runs: list[Run]) -> bool:
    """Return whether a target was missed in any run, by wall time or by gap."""
    return case.target is not None and any(run.wall > case.target or run.gap > case.gap for run in runs)


def main() -> int:
    """Run all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    measure(CASES[0], 0)  # numpy and highspy are imported here
    results, failures = [], 0
    for case in CASES:
        if arguments.only not in str(case):
            continue
        runs = [measure(case, seed) for seed in range(arguments.seeds)]
        failed = missed(case, runs)
        failures += failed
        cpu, wall, gaps = ([getattr(run, name) for run in runs] for name in ("cpu", "wall", "gap"))
        verdict = "" if case.target is None else f"  target {case.target:g} s: {'MISSED' if failed else 'met'}"
        proven = sum(run.status == "proven" for run in runs)
        print(
            f"{case!s:62} cpu {statistics.median(cpu):6.2f} / {max(cpu):6.2f} s  wall {statistics.median(wall):6.2f} / "
            f"{max(wall):6.2f} s  gap {statistics.median(gaps):.1e} / {max(gaps):.1e}  proven {proven}/{len(runs)}"
            f"  binding {min(run.binding for run in runs)}{verdict}",
            flush=True,
        )
        results.append({"case": asdict(case), "runs": [asdict(run) for run in runs], "missed": failed})
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
