"""Windows of tokens from several texts, each with its share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from anyblock.calibration.packing import pack_text
from anyblock.calibration.text import Text
from anyblock.errors import UsageError

if TYPE_CHECKING:
    import torch


def pack_mixture(
    parts: Sequence[tuple[str, Text, float]], tokenizer: Any, block_size: int, *, max_tokens: int
) -> tuple[torch.Tensor, list[str]]:
    """Pack texts into windows, in turn and in proportion to their weights.

    Args:
        parts: name, text and weight of each.
        tokenizer: the model's own tokenizer.
        block_size: tokens of one window.
        max_tokens: use at most so many tokens in all. A text that is too short for its share gives what it has.

    Returns:
        Windows, int64 `[windows, block_size]`, and a note for each text that was too short for its share.

    Raises:
        InputError: a text is too short for one window.
        UsageError: `max_tokens` does not allow one window of each text.
    """
    import torch

    if len(parts) == 1:
        return pack_text(parts[0][1], tokenizer, block_size, max_tokens=max_tokens), []
    total, weights = max_tokens // block_size, [weight for _, _, weight in parts]
    counts = _shares(total, weights)
    if not all(counts):
        raise UsageError(
            f"{max_tokens} tokens are {total} blocks of {block_size}, too few for {len(parts)} texts by their weights",
            expected="at least one block of each text",
            hint="raise the number of tokens, lower data.block_size, or give a text more weight",
        )
    notes: list[str] = []
    rows: list[tuple[float, int, torch.Tensor]] = []
    for number, ((name, text, _), count) in enumerate(zip(parts, counts, strict=True)):
        windows = pack_text(text, tokenizer, block_size, max_tokens=count * block_size)
        if len(windows) < count:
            notes.append(f"{name}: {len(windows)} of {count} blocks of {block_size} tokens, since the text has no more")
        # Spread evenly over the whole, so that every part of it is a mixture, too.
        rows += [((place + 0.5) / len(windows), number, window) for place, window in enumerate(windows)]
    rows.sort(key=lambda row: row[:2])
    return torch.stack([window for _, _, window in rows]), notes


def _shares(total: int, weights: Sequence[float]) -> list[int]:
    """Divide a number in proportion to weights, by largest remainders."""
    exact = [total * weight / sum(weights) for weight in weights]
    counts = [int(share) for share in exact]
    by_rest = sorted(range(len(exact)), key=lambda place: (counts[place] - exact[place], place))
    for place in by_rest[: total - sum(counts)]:
        counts[place] += 1
    return counts
