"""The table and the plot of `quality.py`."""

from __future__ import annotations

import math
import platform
import subprocess
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from anyblock.report import format as fmt

if TYPE_CHECKING:
    from quality import Row

COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf")


def page(rows: Sequence[Row], facts: Mapping[str, Any], picture: str | None) -> str:
    """Return the Markdown page.

    Args:
        rows: what was measured.
        facts: the conditions.
        picture: the plot's file name; None leaves it out.
    """
    lines = [
        "# Quality at equal size",
        "",
        "Written by `python core/benchmarks/quality.py`; do not edit. The methods are described at the end.",
        "",
        f"{facts['model']}, {facts['text']}. {facts['calibration tokens']} tokens for importance, repair and distillation, "
        f"{facts['scoring tokens']} of these for scores, {facts['evaluation tokens']} other ones for this table."
        + (f" Further settings: {', '.join(facts['settings'])}." if facts["settings"] else ""),
        f"Machine: {machine()}; one thread, on a machine that others used heavily at the time. "
        f"Commit {', '.join(sorted({row.commit for row in rows}))}.",
        "",
    ]
    if picture:
        lines += [f"![KL of every method]({picture})", ""]
    for share in dict.fromkeys(row.share for row in rows):
        lines += [f"## {share:.0%} of the parameters", ""]
        lines += [
            "| method | parameters | perplexity | KL | top-1 | CPU time | memory |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in (row for row in rows if row.share == share):
            cells = (
                row.method,
                fmt.count(row.parameters),
                fmt.number(row.perplexity),
                f"{row.kl:.4f}",
                fmt.percent(row.top1),
                "–" if row.cpu is None else fmt.duration(row.cpu),
                fmt.size(row.memory),
            )
            lines.append(f"| {' | '.join(cells)} |")
        lines += ["", *_verdict(share, rows), ""]
    return "\n".join([*lines, *METHODS]) + "\n"


def _verdict(share: float, rows: Sequence[Row]) -> list[str]:
    kl = {row.method: row.kl for row in rows if row.share == share}
    reference = kl.get("reference's recipe")
    ours = [
        (name, value) for name, value in kl.items() if name.startswith("ours") and not name.endswith("model distilled")
    ]
    if reference is None or not ours:
        return []
    return [f"Of the reference's KL: {', '.join(f'{name} {value / reference:.2f}' for name, value in ours)}."]


METHODS = [
    "## The methods",
    "",
    "KL is KL(teacher || child) in nats a token, top-1 how often the teacher's first choice is the child's. CPU time is what a "
    "row took beyond the rows it builds on: rows of ours build on one another, and all but `random` and `magnitude` on one sweep "
    "of importance hooks, which is not counted. Scores serve all budgets, and count in the first row that needed them. A dash "
    "stands where a row went on from an interrupted run.",
    "",
    "- `random`: the same search with random scores; random channels.",
    "- `magnitude`, `uniform width`: every ffn is cut to one width; the channels with the largest weights stay, or those that "
    "the importance hook ranks first.",
    "- `depth by block influence`: whole layers go, those first whose output is most like their input (ShortGPT).",
    "- `reference's recipe`: its iterative channel hook, every candidate alone by the cosine of final hidden states (per token, "
    "where the reference takes a sample's tokens as one vector), one search, no repair. Halves of a layer are scored by "
    "themselves, where the reference scores pairs.",
    "- `ours one search`: estimated KL, one search. `refined`: searched again around the solution. `repaired`: least squares as "
    "well. `blocks distilled`: every changed layer trained by itself as well. `model distilled`: the whole child trained as well.",
]


def plot(rows: Sequence[Row]) -> str:
    """Return an SVG picture: a bar a child, grouped by budget, as long as the logarithm of its KL."""
    low, high = min(row.kl for row in rows), max(row.kl for row in rows)
    floor, top = math.log10(low) - 0.15, math.log10(high) + 0.05
    left, width, height = 190, 520, 16
    methods = list(dict.fromkeys(row.method for row in rows))
    body: list[str] = []
    place = 24
    for share in dict.fromkeys(row.share for row in rows):
        body.append(f'<text x="8" y="{place}" font-weight="bold">{share:.0%} of the parameters</text>')
        place += 8
        for row in (row for row in rows if row.share == share):
            length = width * (math.log10(row.kl) - floor) / max(top - floor, 1e-9)
            colour = COLOURS[methods.index(row.method) % len(COLOURS)]
            body.append(f'<text x="{left - 6}" y="{place + 12}" text-anchor="end">{escape(row.method)}</text>')
            body.append(f'<rect x="{left}" y="{place}" width="{length:.1f}" height="{height - 3}" fill="{colour}"/>')
            body.append(f'<text x="{left + length + 5:.1f}" y="{place + 12}">{row.kl:.3f}</text>')
            place += height
        place += 26
    size = f'width="{left + width + 60}" height="{place}"'
    title = "<title>KL(teacher || child) in nats a token, logarithmic</title>"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">{title}'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(body)}</svg>\n'
    )


def machine() -> str:
    """Return what kind of machine this is."""
    import os

    return f"{os.cpu_count()}-core {platform.machine()} virtual machine, torch {torch.__version__}"


def commit() -> str:
    """Return the commit that this file is from, with a word if the work tree differs from it."""
    folder = Path(__file__).parent
    try:
        name = subprocess.run(
            ["git", "describe", "--always", "--dirty=, changed", "--abbrev=12", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name.stdout.strip()
