"""The page: one file that holds its style, its code and its data."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from anyblock.errors import ConfigError, ExecutionError, OutputExistsError, UsageError
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from anyblock_html_report.run import Run, forget_stale, of_another_version
from anyblock_html_report.texts import shown_texts
from anyblock_html_report.views import budgets, figures, verdict, view_of
from anyblock_html_report.wording import duration, number, quantity

_MARK: Final = '<meta name="generator" content="anyblock-html-report'
MOST_BYTES: Final = 1_000_000
"""The page of one run is not larger than this, the texts of `--texts` aside."""
_SCRIPTS: Final = ("vendor/d3.min.js", "vendor/plot.umd.min.js", "report.js")


def render(runs: Sequence[Run]) -> str:
    """Return the page of one run, or of several that are compared.

    Raises:
        InputError: a file of a run does not have the form that this version knows.
    """
    environment = Environment(
        loader=PackageLoader("anyblock_html_report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    own = files("anyblock_html_report")
    drawn = [_drawn(run) for run in runs]

    def page() -> str:
        """Return it with everything that is in `drawn` now."""
        return environment.get_template("page.html.j2").render(
            runs=[shown for shown, _ in drawn],
            title=", ".join(run.name for run in runs),
            generator=f"anyblock-html-report {version('anyblock-html-report')}",
            style=Markup(own.joinpath("report.css").read_text(encoding="utf-8")),
            # Vendored and own files, none of which holds the end of a script element.
            scripts=[Markup(own.joinpath(name).read_text(encoding="utf-8")) for name in _SCRIPTS],
            data=embedded([view for _, view in drawn]),
        )

    text = page()
    if len(runs) == 1:
        shown, view = drawn[0]
        if len(text.encode()) > MOST_BYTES + len(embedded(shown["texts"])) and view["damage"]:
            # The one view that grows with layers times candidates.
            view["damage"] = []
            shown["no_damage"] = "The map is left out, since the page would be larger than 1 MB."
            text = page()
    return text


def _drawn(run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        forget_stale(run)
        view = view_of(run)
        scored = run.scores is not None and run.candidates is not None
        no_damage = "" if scored else "The candidates have not been scored yet."
        return _shown(run) | {
            "trained": bool(view["training"]),
            "curves": bool(view["curves"]),
            "no_damage": no_damage,
        }, view
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        what = error.in_one_line() if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
        raise of_another_version(run, f"its files have another form ({what})") from error


def embedded(data: Any) -> Markup:
    """Return JSON that can stand in a script element: whatever a name or a text holds, nothing ends the element."""
    text = json.dumps(_finite(data), separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _finite(data: Any) -> Any:
    """Return the data with None for numbers that JSON does not have."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _shown(run: Run) -> dict[str, Any]:
    notes = list(run.summary.get("notes") or [])
    if run.busy:
        notes.insert(0, "A process is working on this run: what is shown may be out of date in a moment.")
    installed = version("anyblock")
    if run.version and run.version != installed:
        notes.insert(0, f"The run was made by AnyBlock {run.version}; this page by {installed}.")
    return {
        "run": run,
        "verdict": verdict(run),
        "figures": figures(run),
        "budgets": budgets(run),
        "texts": shown_texts(run),
        "notes": notes,
        "compared": _compared(run),
        "search": _search(run),
        "agreement": _agreement(run),
        "versions": " · ".join(f"{name} {found}" for name, found in (run.summary.get("versions") or {}).items()),
        "formats": [
            (name, "no" if fit["obstacles"] else "yes", "; ".join(fit["obstacles"] or fit["remarks"]))
            for name, fit in (run.summary.get("formats") or {}).items()
        ],
        "evaluations": [
            (name, figure["name"], number(figure["teacher"]), number(figure["child"]))
            for name, found in (run.summary.get("evaluations") or {}).items()
            for figure in found
        ],
    }


def _search(run: Run) -> str:
    found = run.summary.get("search")
    return f"Search: {found['status']}, gap {found['gap']:.2g}." if found else ""


def _agreement(run: Run) -> str:
    found = run.agreement
    if found is None:
        return ""
    return (
        f"Scores are estimates corrected by {found['sample']:.0f} exact ones; the rank correlation of both is "
        f"{found['rank_correlation']:.3f}."
    )


def _compared(run: Run) -> list[tuple[str, float | None]]:
    """Return a row of the comparison: each cell as text and as what it is sorted by."""
    costs, quality = run.summary.get("costs") or {}, run.summary.get("quality") or {}
    teacher = run.summary.get("teacher_costs") or {}
    child = quality.get("child") or {}
    seconds = sum(stage["seconds"] for stage in run.stages.values())
    share = costs["params"] / teacher["params"] if teacher.get("params") else None
    return [
        ("–" if "params" not in costs else quantity(costs["params"]), costs.get("params")),
        ("–" if share is None else f"{share:.1%}", share),
        (
            "–" if "weight_memory" not in costs else quantity(costs["weight_memory"], "bytes"),
            costs.get("weight_memory"),
        ),
        (number(quality.get("kl_per_token")), quality.get("kl_per_token")),
        (number(child.get("perplexity")), child.get("perplexity")),
        ("–" if quality.get("top1") is None else f"{quality['top1']:.1%}", quality.get("top1")),
        (duration(seconds), seconds),
    ]


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse a place where the page would destroy something else than an earlier page.

    Raises:
        UsageError: it is a folder, or its folder does not exist.
        OutputExistsError: another file is there, and is not to be replaced.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder", expected="a file for the page, for instance --out report.html")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", expected="--out FILE in a folder that exists")
    if path.exists() and not overwrite and not _is_page(path):
        raise OutputExistsError(
            f"{path} is there already and is not a report", hint="choose another file with --out, or pass --overwrite"
        )


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return _MARK.encode() in file.read(1024)


def write_page(text: str, path: Path) -> None:
    """Write the page next to its place and put it there in one step; what was there stays if anything fails.

    Raises:
        ExecutionError: it cannot be written.
    """
    try:
        work = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            work.write_text(text, encoding="utf-8", newline="\n")
            work.replace(path)
        finally:
            work.unlink(missing_ok=True)
    except OSError as error:
        raise ExecutionError(
            f"{path} cannot be written: {error}", hint="choose another place with --out, or free disk space"
        ) from error
