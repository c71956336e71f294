"""HiGHS, quiet and reproducible.

HiGHS: Huangfu and Hall, "Parallelizing the dual revised simplex method", Math. Prog. Comp. 10 (2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from anyblock.errors import ExecutionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyblock.search.instance import Floats, Instance, Ints

_TOLERANCE: Final = 1e-9
"""How far a row may be broken, in units of its largest cost."""


@cache
def _solver_class() -> type[Any]:
    import highspy

    class QuietHighs(highspy.Highs):  # type: ignore[misc]
        def enableCallbacks(self) -> None:  # noqa: N802 - highspy's name
            # HiGHS writes its banner to file descriptor 1 with the first callback that is set, which the constructor
            # does here, before a caller can reach an option.
            self.setOptionValue("output_flag", False)
            super().enableCallbacks()

    return QuietHighs


def new_solver(**options: bool | int | float | str) -> Any:
    """Return a `highspy.Highs` that writes nothing to stdout and runs on one thread."""
    solver = _solver_class()()
    for name, value in {"output_flag": False, "threads": 1, **options}.items():
        solver.setOptionValue(name, value)
    return solver


@dataclass(frozen=True)
class MipResult:
    """What HiGHS found.

    Attributes:
        chosen: position of the chosen option of each group, `[groups]`; None when HiGHS has no solution.
        bound: no feasible choice scores less; infinite when there is none at all.
        nodes: branch-and-bound nodes that were opened.
    """

    chosen: Ints | None
    bound: float
    nodes: int


def solve_mip(
    instance: Instance,
    *,
    gap: float,
    seconds: float,
    nodes: int | None,
    seed: int,
    start: Ints | None,
    stopped: Callable[[], bool],
) -> MipResult:
    """Solve an instance as a mixed-integer program.

    Args:
        instance: what to solve.
        gap: relative gap at which HiGHS stops.
        seconds: time limit.
        nodes: node limit; None means no limit.
        seed: HiGHS's random seed.
        start: position of the chosen option of each group in a known solution, `[groups]`.
        stopped: asked now and then whether to give up.

    Returns:
        The solution keeps the rows up to HiGHS's tolerance only; the caller checks it.

    Raises:
        ExecutionError: when HiGHS fails.
    """
    import highspy
    import numpy as np

    scale = float(np.abs(instance.score).max(initial=0.0)) or 1.0
    solver = new_solver(
        mip_rel_gap=gap,
        mip_abs_gap=1e-12,
        mip_feasibility_tolerance=_TOLERANCE,
        primal_feasibility_tolerance=_TOLERANCE,
        time_limit=max(seconds, 0.0),
        random_seed=seed,
    )
    if nodes is not None:
        solver.setOptionValue("mip_max_nodes", nodes)
    solver.cbMipInterrupt += lambda event: event.interrupt() if stopped() else None
    solver.passModel(_model(instance, scale))
    if start is not None:
        values = np.zeros(len(instance.score))
        values[start] = 1.0
        solution = highspy.HighsSolution()
        solution.col_value = list(values)
        solver.setSolution(solution)
    run(solver)
    status, info = solver.getModelStatus(), solver.getInfo()
    opened = max(int(info.mip_node_count), 0)
    if status == highspy.HighsModelStatus.kInfeasible:
        return MipResult(None, np.inf, opened)
    chosen = None
    if info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible:
        chosen = _largest_in_group(instance, np.array(solver.getSolution().col_value))
    return MipResult(chosen, float(info.mip_dual_bound) * scale, opened)


def run(solver: Any) -> None:
    """Run a solver.

    Raises:
        ExecutionError: when it reports an error rather than a result.
    """
    import highspy

    if solver.run() == highspy.HighsStatus.kError:
        raise ExecutionError(f"HiGHS failed: {solver.modelStatusToString(solver.getModelStatus())}")


def _largest_in_group(instance: Instance, values: Floats) -> Ints:
    import numpy as np

    bounds = zip(instance.start[:-1], instance.start[1:], strict=True)
    return np.array([low + int(values[low:high].argmax()) for low, high in bounds], dtype=np.intp)


def _model(instance: Instance, scale: float) -> Any:
    """Build `min score.x / scale` over binaries: one equality a group, one scaled row a budget."""
    import highspy
    import numpy as np

    groups, options, rows = instance.groups, len(instance.score), len(instance.limit)
    size = np.abs(instance.rows).max(axis=1, initial=0.0)
    size[size == 0.0] = 1.0
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = options, groups + rows
    lp.col_cost_ = instance.score / scale
    lp.col_lower_, lp.col_upper_ = np.zeros(options), np.ones(options)
    lp.integrality_ = [highspy.HighsVarType.kInteger] * options
    lp.row_lower_ = np.concatenate([np.ones(groups), np.full(rows, -np.inf)])
    lp.row_upper_ = np.concatenate([np.ones(groups), (instance.limit + instance.slack) / size])
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = np.concatenate([instance.start, instance.start[-1] + options * np.arange(1, rows + 1)])
    lp.a_matrix_.index_ = np.concatenate([np.arange(options), np.tile(np.arange(options), rows)])
    lp.a_matrix_.value_ = np.concatenate([np.ones(options), (instance.rows / size[:, None]).ravel()])
    return lp
