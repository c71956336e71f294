"""Blocks of tokens, cut into batches and named by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from anyblock.calibration.packing import Around
from anyblock.errors import InputError, UsageError


@dataclass(frozen=True)
class Batches:
    """Slices of at most `batch_size` sequences.

    Attributes:
        ids: int64 `[sequences, block_size]`.
        batch_size: sequences of one batch; the last batch may have fewer.
        around: what the tokenizer put around the text, which is context that no figure counts; None for other token ids.
    """

    ids: torch.Tensor
    batch_size: int = 1
    around: Around | None = None

    def __post_init__(self) -> None:
        if self.ids.dim() != 2 or self.ids.dtype != torch.long or self.ids.numel() == 0:
            raise InputError(
                f"token ids are {self.ids.dtype} of shape {list(self.ids.shape)}",
                expected="int64 [sequences, block_size], neither of them 0",
            )
        if self.batch_size < 1:
            raise UsageError(f"batch size is {self.batch_size}", expected="at least 1 sequence")

    @property
    def block_size(self) -> int:
        """The tokens of one sequence."""
        return self.ids.shape[1]

    @property
    def tokens(self) -> int:
        """The tokens of all sequences."""
        return self.ids.numel()

    @property
    def labels(self) -> torch.Tensor:
        """What evaluations count: the token ids, and -100 for what the tokenizer put around the text; shaped as `ids`."""
        return self.ids if self.around is None else self.around.labels(self.ids)

    @property
    def bos(self) -> bool | None:
        """Whether each sequence begins with what the tokenizer puts in front of a text; None when nothing is known of one."""
        return None if self.around is None else bool(self.around.before)

    @cached_property
    def key(self) -> str:
        """A hash of the token ids and their shape, 32 hexadecimal digits; the batch size does not enter."""
        digest = hashlib.blake2b(f"{list(self.ids.shape)}".encode(), digest_size=16)
        digest.update(self.ids.cpu().contiguous().numpy().astype("<i8", copy=False).tobytes())
        return digest.hexdigest()

    def spread(self, tokens: int) -> Batches:
        """Return sequences from all over the text, evenly spaced, with at most so many tokens, but at least one sequence."""
        count = max(1, min(len(self.ids), tokens // self.block_size))
        return replace(self, ids=self.ids[[place * len(self.ids) // count for place in range(count)]])

    def __len__(self) -> int:
        return -(-self.ids.shape[0] // self.batch_size)

    def __getitem__(self, index: int) -> torch.Tensor:
        if not -len(self) <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        start = (index % len(self)) * self.batch_size
        return self.ids[start : start + self.batch_size]

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (self[index] for index in range(len(self)))
