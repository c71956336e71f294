"""The table and the plot of `quality.py`."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, geometric_mean
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
    seen, unseen = facts["seen"], facts["unseen"]
    lines = [
        "# Quality at equal size",
        "",
        "Written by `python core/benchmarks/quality.py`; do not edit. The methods are described at the end.",
        "",
        f"{facts['model']}. Calibrated on a mixture of {', '.join(seen)}: {facts['calibration tokens']} tokens for importance, "
        f"repair and distillation, {facts['scoring tokens']} of these for scores. Evaluated on {facts['evaluation tokens']} other "
        f"tokens of each kind, and of {' and '.join(unseen)}, which nothing was calibrated on or chosen by."
        + (f" Further settings: {', '.join(facts['settings'])}." if facts["settings"] else ""),
        f"Machine: {machine()}; one thread. Commit {', '.join(sorted({row.commit for row in rows}))}.",
        "",
        "*Mixture* and *unseen* are geometric means over kinds of text. Where there are several seeds, which order the calibration "
        "text, figures are means, and the spread is half the distance from the least to the most.",
        "",
    ]
    if picture:
        lines += [f"![KL of every method]({picture})", ""]
    for share in dict.fromkeys(row.share for row in rows):
        lines += [f"## {share:.0%} of the parameters", ""]
        heads = ["method", "seeds", "KL, mixture", "KL, unseen", *(f"KL, {kind}" for kind in (*seen, *unseen))]
        heads += ["perplexity, mixture", "top-1, mixture", "CPU time", "memory"]
        lines += [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
        for method, mine in _by_method(rows, share).items():
            times = [row.cpu for row in mine if row.cpu is not None]
            cells = [method, str(len(mine)), _spread(mine, seen), _spread(mine, unseen)]
            cells += [f"{fmean(row.kl[kind] for row in mine):.3f}" for kind in (*seen, *unseen)]
            cells += [
                fmt.number(fmean(geometric_mean(row.perplexity[kind] for kind in seen) for row in mine)),
                fmt.percent(fmean(fmean(row.top1[kind] for kind in seen) for row in mine)),
                fmt.duration(fmean(times)) if times else "–",
                fmt.size(max(row.memory for row in mine)),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        lines += ["", *_verdict(_by_method(rows, share), seen, unseen), ""]
    return "\n".join([*lines, *METHODS]) + "\n"


def _by_method(rows: Sequence[Row], share: float) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.share == share:
            found.setdefault(row.method, []).append(row)
    return found


def _kl(row: Row, names: Sequence[str]) -> float:
    return geometric_mean(row.kl[kind] for kind in names)


def _spread(rows: Sequence[Row], names: Sequence[str]) -> str:
    values = [_kl(row, names) for row in rows]
    spread = f" ± {(max(values) - min(values)) / 2:.3f}" if len(values) > 1 else ""
    return f"{fmean(values):.3f}{spread}"


def _verdict(found: Mapping[str, list[Row]], seen: Sequence[str], unseen: Sequence[str]) -> list[str]:
    """Compare each of our rows with the reference's choice after the same stages, over all kinds of text."""
    every = [*seen, *unseen]
    lines = []
    for theirs, mine in PAIRS:
        if theirs in found and mine in found:
            share = fmean(_kl(row, every) for row in found[mine]) / fmean(_kl(row, every) for row in found[theirs])
            lines.append(f"- `{mine}` has {share:.2f} of the KL of `{theirs}`, over all kinds of text.")
    return lines


PAIRS = (
    ("reference's recipe", "ours, one search, plain"),
    ("reference's, repaired", "ours, one search"),
    ("reference's, repaired", "ours, repaired to the stream"),
    ("reference's, repaired", "ours, refined"),
    ("reference's, blocks distilled", "ours, blocks distilled"),
    ("reference's, model distilled", "ours, model distilled"),
)
"""Rows that went through the same stages."""
METHODS = [
    "## The methods",
    "",
    "KL is KL(teacher || child) in nats per token, top-1 how often the teacher's first choice is the child's. CPU time is what a "
    "row took beyond the rows it builds on, of which each run folder has its own: the reference's, and ours. A dash stands where a "
    "row went on from an interrupted run.",
    "",
    "- `random`: the same search with random scores; random channels.",
    "- `magnitude`, `uniform width`: every ffn is cut to one width; the channels with the largest weights stay, or those that "
    "the iterative importance hook ranks first.",
    "- `depth by block influence`: whole layers go, those first whose output is most like their input (ShortGPT).",
    "- `reference's recipe`: its iterative channel hook, every candidate alone by the cosine of final hidden states (per token, "
    "where the reference takes a sample's tokens as one vector), one search, no repair. Halves of a layer are scored by "
    "themselves, where the reference scores pairs. `repaired`, `blocks distilled`, `model distilled`: the same choice, with "
    "exactly the stages that ours has.",
    "- `ours, one search, plain`: estimated KL, one search, no repair. `ours, one search`: the channels in the order of the "
    "optimal brain surgeon, least squares after one search; `iterative order` with the reference's order instead; `repaired to "
    "the stream` with `pruning.repair.target=stream`. `refined`: searched again around the solution. `blocks distilled`: every "
    "changed layer trained by itself as well, for 4 epochs at a rate of 2e-3. `model distilled`: the whole child trained as well.",
]


def plot(rows: Sequence[Row], facts: Mapping[str, Any], path: Path) -> None:
    """Write a picture: two bars per method, its KL on text like the calibration's and on other text; one panel per budget."""
    import matplotlib.pyplot as plt

    shares = list(dict.fromkeys(row.share for row in rows))
    count = sum(len(_by_method(rows, share)) for share in shares)
    size = (7.5, 0.8 + 0.42 * count + 0.6 * len(shares))
    figure, panels = plt.subplots(len(shares), 1, figsize=size, sharex=True, squeeze=False, layout="constrained")
    for (panel,), share in zip(panels, shares, strict=True):
        found = _by_method(rows, share)
        for place, (label, names) in enumerate((("mixture", facts["seen"]), ("unseen", facts["unseen"]))):
            values = [fmean(_kl(row, names) for row in mine) for mine in found.values()]
            bars = panel.barh([index + 0.4 * place for index in range(len(found))], values, height=0.38, label=label)
            panel.bar_label(bars, fmt="%.3f", padding=3)
        panel.set(title=f"{share:.0%} of the parameters")
        panel.set_yticks([index + 0.2 for index in range(len(found))], list(found))
        panel.invert_yaxis()
        panel.margins(x=0.15)
        panel.set_xlim(left=0)
    panels[0][0].legend()
    panels[-1][0].set_xlabel("KL(teacher || child), nats per token")
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
