"""Cut a text's tokens into the windows that perplexity is measured over."""

from __future__ import annotations

from itertools import pairwise

import torch

from anyblock.calibration.packing import IGNORED, NOTHING, Around, pack_tokens, text_tokens
from anyblock.errors import UsageError


def windows(
    tokens: torch.Tensor, block_size: int, stride: int | None = None, around: Around = NOTHING
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return windows over `tokens` and what is counted of each.

    Where the tokenizer puts something in front of a text (BOS), each window begins with it and the rest is text; it is
    context, never counted, and from it the first token of text is predicted. Without a stride every token of the text is
    then in the window that begins where the one before ends, and counted once.

    Otherwise, without a stride, the windows do not overlap: the tokens are packed back to back, the remainder is dropped,
    and every token is counted. The first token of each window is then predicted by nothing.

    With a stride, windows start every `stride` tokens, and of each window only the tokens that no earlier window had are
    counted, so that every token (but the very first, where nothing stands in front) is predicted once, with at least
    `block_size - stride` tokens of context (the first window aside). This is the strided perplexity of the transformers
    guide "Perplexity of fixed-length models", except that a last window which would stick out is moved back to end with
    the text, so that its tokens do not have less context than the others.

    Args:
        tokens: int64 `[tokens]`.
        block_size: tokens of one window, those in front of the text included.
        stride: tokens of text from one window's start to the next, at most those of one window; None means no overlap.
        around: what the tokenizer puts around a text.

    Returns:
        `(ids, labels)`, both int64 `[windows, block_size]`; a label is the token itself, or -100 for context only.

    Raises:
        InputError: there are fewer tokens than one block.
        UsageError: the stride is out of range.
    """
    size = text_tokens(block_size, around)
    if stride is None and not around.before:
        ids = pack_tokens(tokens, block_size)
        return ids, around.labels(ids)
    stride = size if stride is None else stride
    if not 1 <= stride <= size:
        raise UsageError(f"stride is {stride}", expected=f"1 to the tokens of text in one window, {size}")
    last = len(tokens) - len(pack_tokens(tokens[:size], block_size, around)) * size
    starts = list(range(0, last + 1, stride))
    if starts[-1] != last:
        starts.append(last)
    ids = around.begin(torch.stack([tokens[start : start + size] for start in starts]))
    labels = around.labels(ids).clone()
    for window, (before, start) in enumerate(pairwise(starts), start=1):
        labels[window, : len(around.before) + before + size - start] = IGNORED
    return ids, labels
