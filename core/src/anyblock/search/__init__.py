"""Choose one option for every group so that the summed score is least and every budget is kept.

numpy and highspy are imported when a problem is solved, not when this package is.
"""

from __future__ import annotations

from anyblock.search.budgets import Budget
from anyblock.search.homogeneous import homogeneous
from anyblock.search.infeasible import largest, smallest
from anyblock.search.problem import Group, Option, Problem
from anyblock.search.reach import Reachable
from anyblock.search.solution import Solution
from anyblock.search.solve import solve, solve_diverse
from anyblock.search.sweep import SweepPoint, sweep, sweep_csv, sweep_json, sweep_rows

__all__ = [
    "Budget",
    "Group",
    "Option",
    "Problem",
    "Reachable",
    "Solution",
    "SweepPoint",
    "homogeneous",
    "largest",
    "smallest",
    "solve",
    "solve_diverse",
    "sweep",
    "sweep_csv",
    "sweep_json",
    "sweep_rows",
]
