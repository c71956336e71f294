"""The rows of a run's tables, as text for Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from anyblock.contract.blocks import block_configs_from_json
from anyblock.contract.evaluation import read_figures
from anyblock.costs.registry import known_costs
from anyblock.evaluation.result import EvaluationResult
from anyblock.report import format as fmt
from anyblock.report.summary import BudgetLine, RunSummary
from anyblock.report.table import attention_share, attention_text, bar, check_same_layers, ffn_share, ffn_text

Row = tuple[str, ...]


def layer_rows(run: RunSummary) -> Iterator[Row]:
    """Yield layer, attention, share of it, ffn, share of it.

    Raises:
        ConfigError: the block configs are malformed.
        UsageError: the child and the teacher do not have the same number of layers.
    """
    children = block_configs_from_json(run.block_configs)
    teachers = block_configs_from_json(run.teacher_block_configs, where="teacher_block_configs")
    check_same_layers(children, teachers)
    for index, (child, teacher) in enumerate(zip(children, teachers, strict=True)):
        attention, ffn = attention_share(child.attention, teacher.attention), ffn_share(child.ffn, teacher.ffn)
        yield (
            str(index),
            attention_text(child.attention, teacher.attention),
            _share(attention),
            ffn_text(child.ffn, teacher.ffn),
            _share(ffn),
        )


def _share(share: float) -> str:
    # Shaded cells, because blanks at the end of inline code are lost when the page is rendered.
    return f"`{bar(share).replace(' ', '░')}` {share:.0%}"


def quality_rows(run: RunSummary) -> Iterator[Row]:
    """Yield figure, teacher, child; nothing where nothing was evaluated."""
    if run.quality is None:
        return
    result = EvaluationResult.from_dict(run.quality)
    teacher = result.teacher
    yield "perplexity", fmt.number(teacher.perplexity if teacher else None), fmt.number(result.perplexity)
    yield "loss (nats a token)", fmt.number(teacher.loss if teacher else None), fmt.number(result.loss)
    if result.kl_per_token is not None:
        yield "KL(teacher ‖ child), nats a token", "0", fmt.number(result.kl_per_token)
        yield "teacher's first choice is the child's first", "100.0%", fmt.percent(result.top1)
        yield "… is among the child's first five", "100.0%", fmt.percent(result.top5)
    speed = None if teacher is None else teacher.tokens_per_second
    yield "tokens a second (forward pass)", fmt.number(speed, 3), fmt.number(result.tokens_per_second, 3)


def cost_rows(run: RunSummary) -> Iterator[Row]:
    """Yield cost, teacher, child, share of the teacher's, of those that either has."""
    child, teacher = run.costs or {}, run.teacher_costs or {}
    for name, about in known_costs().items():
        before = teacher.get(name)
        if child.get(name) or before:
            text = "–" if before is None else fmt.quantity(before, about.unit)
            yield name, text, fmt.quantity(child.get(name, 0.0), about.unit), fmt.ratio(child.get(name, 0.0), before)


def budget_row(line: BudgetLine) -> Row:
    """Return cost, bound, used, share of the bound."""
    about = known_costs().get(line.cost)
    unit = about.unit if about else ""
    bounds = [
        f"{sign} {fmt.quantity(value, unit)}"
        for sign, value in (("at most", line.upper), ("at least", line.lower))
        if value is not None
    ]
    return line.cost, ", ".join(bounds) or "none", fmt.quantity(line.used, unit), fmt.ratio(line.used, line.upper)


def search_rows(run: RunSummary) -> list[Row]:
    """Return what the search found; empty when the child was given."""
    if run.search is None:
        return []
    search = run.search
    rows: list[Row] = [
        ("status", search.status),
        (f"value (sum of {search.score_kind or 'scores'})", fmt.number(search.score, 6)),
        ("lower bound", fmt.number(search.bound, 6)),
        ("gap", f"{search.gap:.2g}" if search.gap else "0 (proven)"),
    ]
    return rows if search.seconds is None else [*rows, ("time", fmt.duration(search.seconds))]


def evaluation_rows(run: RunSummary) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield a row for each figure of further evaluations: evaluation, figure, teacher, child, and which way is better."""
    better = {True: "higher", False: "lower", None: ""}
    for name, figures in (run.evaluations or {}).items():
        for figure in read_figures(figures):
            teacher = "" if figure.teacher is None else fmt.number(figure.teacher)
            yield name, figure.name, teacher, fmt.number(figure.child), better[figure.higher_is_better]
