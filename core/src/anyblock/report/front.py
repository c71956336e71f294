"""A front of solutions as a page with a plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from anyblock.errors import InputError

if TYPE_CHECKING:
    from anyblock.search.sweep import SweepPoint


def front_page(points: Sequence[SweepPoint]) -> str:
    """Return an HTML page, complete in itself, with the predicted score over the budget, and the lower bound below it.

    Raises:
        InputError: plotly is not installed.
    """
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise InputError(
            "the plot needs plotly",
            hint="install it: pip install 'anyblock[report]', or give --sweep to a run where it is",
        ) from error
    found = [(point.value, point.solution) for point in points if point.solution is not None]
    values = [value for value, _ in found]
    figure = go.Figure()
    for name, heights in (
        ("predicted score", [solution.score for _, solution in found]),
        ("lower bound", [solution.bound for _, solution in found]),
    ):
        figure.add_scatter(x=values, y=heights, name=name, mode="lines+markers")
    figure.update_layout(xaxis_title=f"{points[0].cost}, at most", yaxis_title="score", template="plotly_white")
    page: str = figure.to_html(include_plotlyjs=True, full_html=True)
    return page
