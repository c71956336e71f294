"""Cut a text's tokens into the windows that perplexity is measured over."""

from __future__ import annotations

from itertools import pairwise

import torch

from anyblock.calibration.text import pack_tokens
from anyblock.errors import UsageError
from anyblock.evaluation.metrics import IGNORED


def windows(tokens: torch.Tensor, block_size: int, stride: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return windows over `tokens` and what is counted of each.

    Without a stride the windows do not overlap: the tokens are packed back to back, the remainder is dropped, and every
    token is counted. The first token of each window is then predicted by nothing, and the next ones see little context.

    With a stride below the block size, windows start every `stride` tokens, and of each window only the tokens that no
    earlier window had are counted, so that every token but the very first is predicted once, with at least
    `block_size - stride` tokens of context (the first window aside). This is the strided perplexity of the transformers
    guide "Perplexity of fixed-length models", except that a last window which would stick out is moved back to end with
    the text, so that its tokens do not have less context than the others.

    Args:
        tokens: int64 `[tokens]`.
        block_size: tokens of one window.
        stride: tokens from one window's start to the next, 1 to `block_size`; None is `block_size`, remainder dropped.

    Returns:
        `(ids, labels)`, both int64 `[windows, block_size]`; a label is the token itself, or -100 for context only.

    Raises:
        InputError: there are fewer tokens than one block.
        UsageError: the stride is out of range.
    """
    if stride is None:
        ids = pack_tokens(tokens, block_size)
        return ids, ids
    if not 1 <= stride <= block_size:
        raise UsageError(f"stride is {stride}", expected=f"1 to the block size, {block_size}")
    last = len(tokens) - len(pack_tokens(tokens[:block_size], block_size)[0])
    starts = list(range(0, last + 1, stride))
    if starts[-1] != last:
        starts.append(last)
    ids = torch.stack([tokens[start : start + block_size] for start in starts])
    labels = ids.clone()
    for window, (before, start) in enumerate(pairwise(starts), start=1):
        labels[window, : before + block_size - start] = IGNORED
    return ids, labels
