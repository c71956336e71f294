"""Several evaluations next to one another."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rich.table import Table

from anyblock.errors import UsageError
from anyblock.evaluation.result import EvaluationResult, ModelFigures
from anyblock.report import format as fmt


def side_by_side(results: Mapping[str, EvaluationResult]) -> Table:
    """Return a table with a column for each result, and one in front for the teacher where there is one.

    Args:
        results: by the name that heads the column.

    Raises:
        UsageError: there is nothing to show, or the results are on different data and cannot be compared.
    """
    if not results:
        raise UsageError("no evaluation results", expected="at least one")
    settings = {(result.data_key, result.block_size, result.stride) for result in results.values()}
    if len(settings) > 1:
        raise UsageError(
            f"{', '.join(results)} were evaluated on different data or windows",
            expected="the same text, block size and stride, so that they can be compared",
        )
    first = next(iter(results.values()))
    table = Table(title=first.windows, title_justify="left", header_style="bold")
    table.add_column("")
    teacher = next((result.teacher for result in results.values() if result.teacher is not None), None)
    for name in (*(["teacher"] if teacher else []), *results):
        table.add_column(name, justify="right")
    for label, show in _OWN.items():
        own = [show(teacher)] if teacher else []
        table.add_row(label, *own, *(show(result.child) for result in results.values()))
    if teacher is not None:
        for label, (perfect, compare) in _COMPARED.items():
            table.add_row(label, perfect, *(compare(result) for result in results.values()))
    return table


_OWN: dict[str, Callable[[ModelFigures], str]] = {
    "perplexity": lambda figures: fmt.number(figures.perplexity),
    "loss": lambda figures: fmt.number(figures.loss),
    "parameters": lambda figures: fmt.count(figures.parameters),
    "weights": lambda figures: fmt.size(figures.bytes),
    "tokens/s": lambda figures: fmt.number(figures.tokens_per_second, 3),
}
_COMPARED: dict[str, tuple[str, Callable[[EvaluationResult], str]]] = {
    "KL per token": ("0", lambda result: fmt.number(result.kl_per_token)),
    "top-1 agreement": ("100.0%", lambda result: fmt.percent(result.top1)),
    "top-5 agreement": ("100.0%", lambda result: fmt.percent(result.top5)),
}
