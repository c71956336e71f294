"""The child's architecture as an SVG that needs nothing else: what a model card shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final
from xml.sax.saxutils import escape

from anyblock.contract.blocks import HALVES, AttentionConfig, BlockConfig, FFNConfig

_LEFT: Final = 96
_WIDTH: Final = 860
"""Of all columns, in pixels."""
_LEAST: Final = 640
"""Of the whole, so that there is room for the legend."""
_HIGH: Final = 90
"""Of a half that the teacher has, in pixels."""
_TOP: Final = 20
_BAND: Final = 24
"""Between the two halves, where the numbers of the layers are."""
_COLOURS: Final = {
    "attention": ("#0072b2", "attention"),
    "mamba": ("#4aa3d8", "Mamba"),
    "ffn": ("#00875f", "FFN"),
    "experts": ("#b8578c", "experts"),
    "linear": ("#d08700", "linear map"),
}
_STYLE: Final = (
    ".paper{fill:#fff}.teacher{fill:none;stroke:#b9b3a7}.gone{stroke:#5d5a54;stroke-width:1.5;stroke-linecap:round}"
    "text{font:11px system-ui,sans-serif;fill:#5d5a54}"
)


def architecture_svg(teacher: Sequence[BlockConfig], child: Sequence[BlockConfig], name: str) -> str:
    """Return a picture of a child: a column per layer, outlined what the teacher has, filled what the child keeps.

    Args:
        teacher, child: the layers of both, as many.
        name: the child's.
    """
    step = max(7.0, min(40.0, _WIDTH / max(1, len(child))))
    width, line = max(_LEAST, round(_LEFT + step * len(child) + 16)), _TOP + _HIGH
    height = line + _BAND + _HIGH + 40
    pairs = list(zip(teacher, child, strict=True))
    drawn = list(chain.from_iterable(_column(i, *pair, _LEFT + i * step, step) for i, pair in enumerate(pairs)))
    every = max(1, -(-24 // int(step)))
    numbers = [
        f'<text x="{_LEFT + (i + 0.5) * step:.1f}" y="{line + _BAND / 2 + 4:.1f}" text-anchor="middle">{i}</text>'
        for i in range(0, len(child), every)
    ]
    sides = [
        f'<text x="{_LEFT - 10}" y="{y}" text-anchor="end">{text}</text>'
        for y, text in ((_TOP + 12, "mixer"), (line + _BAND / 2 + 4, "layer"), (line + _BAND + 14, "feed-forward"))
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            'role="img" aria-labelledby="title about">',
            f'<title id="title">Architecture of {escape(name)}</title>',
            f'<desc id="about">{escape(in_words(teacher, child))}</desc>',
            f"<style>{_STYLE}</style>",
            f'<rect class="paper" width="{width}" height="{height}" rx="8"/>',
            *sides,
            *numbers,
            *drawn,
            *_legend(pairs, height - 16),
            "</svg>\n",
        ]
    )


def in_words(teacher: Sequence[BlockConfig], child: Sequence[BlockConfig]) -> str:
    """Return in a sentence what the picture shows, for those who do not see it."""
    halves = [(own.half(half), mine.half(half)) for own, mine in zip(teacher, child, strict=True) for half in HALVES]
    changed = [mine for own, mine in halves if own != mine]
    gone, linear = sum(half.no_op for half in changed), sum(half.replace_with_linear for half in changed)
    return (
        f"Teacher and child layer by layer: {len(changed)} halves of {len(child)} layers differ from the teacher's (removed: "
        f"{gone}, linear maps: {linear}, smaller: {len(changed) - gone - linear})."
    )


def _column(index: int, teacher: BlockConfig, child: BlockConfig, x: float, step: float) -> Iterator[str]:
    gap = min(6.0, max(1.0, step * 0.16))
    left, wide, line = x + gap / 2, step - gap, _TOP + _HIGH
    for half in HALVES:
        own, mine = teacher.half(half), child.half(half)
        before, after = _size(own), _size(mine)
        if own.no_op:
            continue
        upper = half == "attention"
        base = line if upper else line + _BAND
        share = min(1.0, after / before) if before else float(not mine.removed)
        shape = f'x="{left:.1f}" width="{wide:.1f}" rx="{min(3.0, wide / 4):.1f}"'
        yield f"<g><title>layer {index}, {'mixer' if upper else 'feed-forward'}: {_said(mine, share)}</title>"
        yield f'<rect class="teacher" {shape} y="{base - _HIGH if upper else base}" height="{_HIGH}"/>'
        if mine.no_op:
            cx, cy, r = left + wide / 2, base + (-_HIGH if upper else _HIGH) / 2, min(6.0, wide / 3)
            a, b, c, d = cx - r, cx + r, cy - r, cy + r
            yield f'<path class="gone" d="M{a:.1f},{c:.1f}L{b:.1f},{d:.1f}M{a:.1f},{d:.1f}L{b:.1f},{c:.1f}"/>'
        else:
            high = 7.0 if mine.replace_with_linear else max(1.0, _HIGH * share)
            y = base - high if upper else base
            yield f'<rect {shape} y="{y:.1f}" height="{high:.1f}" fill="{_COLOURS[_kind(mine)][0]}"/>'
        yield "</g>"


def _said(half: AttentionConfig | FFNConfig, share: float) -> str:
    kind = _COLOURS[_kind(half)][1]
    return "removed" if half.no_op else kind if half.replace_with_linear else f"{kind}, {share:.0%} kept"


def _kind(half: AttentionConfig | FFNConfig) -> str:
    if half.replace_with_linear:
        return "linear"
    if isinstance(half, FFNConfig):
        return "ffn" if half.moe is None else "experts"
    return "attention" if half.mamba is None else "mamba"


def _size(half: AttentionConfig | FFNConfig) -> int:
    """Return what is left of a half: heads, or channels over all experts; 0 where nothing says so."""
    if half.removed:
        return 0
    if isinstance(half, FFNConfig):
        if half.moe is None:
            return half.intermediate_size or 0
        return half.moe.num_local_experts * half.moe.expert_intermediate_dim + (
            half.moe.shared_expert_intermediate_dim or 0
        )
    if half.mamba is not None:
        return half.mamba.num_heads
    return (half.num_key_value_heads or 1) * (half.num_attention_heads or 1)


def _legend(pairs: Sequence[tuple[BlockConfig, BlockConfig]], y: int) -> Iterator[str]:
    halves = [(own.half(half), mine.half(half)) for own, mine in pairs for half in HALVES]
    found = {_kind(mine) for _, mine in halves if not mine.no_op}
    entries = [(f'fill="{colour}"', name) for kind, (colour, name) in _COLOURS.items() if kind in found]
    x = _LEFT
    for mark, name in [*entries, ('class="teacher"', "teacher")]:
        yield f'<rect x="{x}.5" y="{y - 9}.5" width="10" height="10" rx="2" {mark}/><text x="{x + 16}" y="{y}">{name}</text>'
        x += 34 + 6 * len(name)
    if any(mine.no_op and not own.no_op for own, mine in halves):
        yield f'<path class="gone" d="M{x},{y - 8}L{x + 8},{y}M{x},{y}L{x + 8},{y - 8}"/><text x="{x + 16}" y="{y}">removed</text>'
