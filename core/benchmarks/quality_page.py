"""The table and the plot of `quality.py`."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from anyblock.report import format as fmt

if TYPE_CHECKING:
    from quality import Row


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
        f"Machine: {machine()}; one thread. Commit {', '.join(sorted({row.commit for row in rows}))}.",
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
    "well. `blocks distilled`: every changed layer trained by itself as well, for 4 epochs at a rate of 2e-3. `model distilled`: "
    "the whole child trained as well.",
]


def plot(rows: Sequence[Row], path: Path) -> None:
    """Write a picture: a bar a child, its KL on a logarithmic scale, one panel for every budget."""
    import matplotlib.pyplot as plt

    shares = list(dict.fromkeys(row.share for row in rows))
    methods = list(dict.fromkeys(row.method for row in rows))
    size = (7.5, 0.6 + 0.28 * len(rows) + 0.5 * len(shares))
    figure, panels = plt.subplots(len(shares), 1, figsize=size, sharex=True, squeeze=False, layout="constrained")
    for (panel,), share in zip(panels, shares, strict=True):
        shown = [row for row in rows if row.share == share]
        colours = [f"C{methods.index(row.method) % 10}" for row in shown]
        bars = panel.barh([row.method for row in shown], [row.kl for row in shown], color=colours)
        panel.bar_label(bars, fmt="%.3f", padding=3)
        panel.set(xscale="log", title=f"{share:.0%} of the parameters")
        panel.invert_yaxis()
        panel.margins(x=0.15)
    panels[-1][0].set_xlabel("KL(teacher || child), nats a token")
    figure.savefig(path, metadata={"Date": None})


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
