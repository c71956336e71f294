"""Choose one option for every group so that the summed score is least and every budget is kept.

numpy and highspy are imported when a problem is solved, not when this package is.
"""

from __future__ import annotations

from anyblock.search.budgets import Budget, merge_budgets
from anyblock.search.problem import Group, Option, Problem
from anyblock.search.solution import Solution
from anyblock.search.solve import solve, solve_diverse

__all__ = ["Budget", "Group", "Option", "Problem", "Solution", "merge_budgets", "solve", "solve_diverse"]
