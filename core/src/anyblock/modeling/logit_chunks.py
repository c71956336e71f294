"""How much of the vocabulary is in memory at a time: the one place where logits are cut into chunks."""

from __future__ import annotations

from collections.abc import Iterator


def logit_chunks(rows: int, width: int, limit: int) -> Iterator[slice]:
    """Yield slices over rows of logits, in order.

    Args:
        rows: how many rows there are.
        width: logits of one row.
        limit: logits of one chunk, at most, unless a single row has more.
    """
    step = max(1, limit // width)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
