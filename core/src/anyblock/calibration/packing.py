"""Pack text into windows of tokens, each of which begins as the model's own tokenizer begins a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from anyblock.calibration.text import Text
from anyblock.errors import InputError, UsageError

if TYPE_CHECKING:
    import torch

IGNORED: Final = -100
"""The label of a token that is context only."""
_CHARACTERS_PER_TOKEN: Final = 8
_MARGIN_TOKENS: Final = 64
_MOST: Final = 0.95
_PROBES: Final = ("a", "the", "1", "A b.")


@dataclass(frozen=True)
class Around:
    """What a tokenizer itself puts around every text, as token ids.

    Attributes:
        before: in front, such as BOS; every window begins with it.
        after: at the end, such as EOS; with `before` it stands between two documents.
    """

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    @classmethod
    def of(cls, tokenizer: Any) -> Around:
        """Ask a tokenizer, by encoding a text with and without special tokens; options such as `add_bos_token` are not asked.

        Raises:
            InputError: the text itself is encoded differently when special tokens are added.
        """
        for probe in _PROBES:
            plain = _encode(probe, tokenizer)
            full: list[int] = tokenizer(probe, add_special_tokens=True, verbose=False)["input_ids"]
            for start in range(len(full) - len(plain) + 1) if plain else ():
                end = start + len(plain)
                if full[start:end] == plain:
                    return cls(tuple(full[:start]), tuple(full[end:]))
        raise InputError(
            f"the tokenizer encodes {probe!r} as {full} with special tokens and as {plain} without",
            expected="the same tokens, with others in front or at the end",
            hint="use the tokenizer that belongs to the model",
        )

    def labels(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the labels of token ids of any shape: -100 for what the tokenizer put there, or else the token itself."""
        import torch

        special = torch.tensor([*self.before, *self.after], dtype=torch.long, device=ids.device)
        return ids.masked_fill(torch.isin(ids, special), IGNORED) if len(special) else ids

    def begin(self, rows: torch.Tensor) -> torch.Tensor:
        """Return rows of text `[windows, tokens]` with `before` in front of each."""
        import torch

        before = torch.tensor(self.before, dtype=rows.dtype, device=rows.device)
        return torch.cat([before.expand(len(rows), -1), rows], dim=1) if self.before else rows


NOTHING: Final = Around()
"""Around token ids that are taken as they are."""


def tokenize(text: Text | str, tokenizer: Any, *, max_tokens: int | None = None) -> torch.Tensor:
    """Return the token ids of a text, int64 `[tokens]`; what the tokenizer puts in front of it is left to the windows.

    Between two documents stands what the tokenizer puts at the end of a text and in front of the next (EOS, BOS), or an
    empty line where it puts nothing. With `max_tokens` only as much text as is needed is tokenized.

    Args:
        text: any length.
        tokenizer: a transformers tokenizer.
        max_tokens: return at most so many tokens.
    """
    import torch

    around = Around.of(tokenizer)
    between = [*around.after, *around.before]
    documents = text.documents if isinstance(text, Text) and between else [str(text)]
    ids: list[int] = []
    for number, document in enumerate(documents):
        if max_tokens is not None and len(ids) >= max_tokens:
            break
        ids += between if number else []
        ids += _first_tokens(document, tokenizer, None if max_tokens is None else max_tokens - len(ids))
    return torch.tensor(ids[:max_tokens], dtype=torch.long)


def _first_tokens(text: str, tokenizer: Any, count: int | None) -> list[int]:
    """Encode a text, or only so much of its beginning that its first `count` tokens are sure."""
    characters = max(4096, (count or 0) * _CHARACTERS_PER_TOKEN)
    while True:
        # The tokens at a cut may differ from those of the whole text, so some more than wanted have to be there.
        border = len(text) if count is None else text.find("\n", characters) + 1 or len(text)
        ids = _encode(text[:border], tokenizer)
        if border == len(text) or len(ids) >= (count or 0) + _MARGIN_TOKENS:
            return ids
        characters *= 2


def pack_tokens(tokens: torch.Tensor, block_size: int, around: Around = NOTHING) -> torch.Tensor:
    """Cut tokens `[tokens]` into windows, int64 `[windows, block_size]`, one after the other; the remainder is dropped.

    Args:
        tokens: of text.
        block_size: tokens of one window, those in front of the text included.
        around: what stands in front of every window.

    Raises:
        InputError: there are fewer tokens than one window needs.
    """
    size = text_tokens(block_size, around)
    count = len(tokens) // size
    if count == 0:
        raise InputError(
            f"the text has {len(tokens)} tokens, too few for one block of {block_size}",
            expected=f"at least {size} tokens",
            hint="use a longer text or a smaller block size",
        )
    return around.begin(tokens[: count * size].view(count, size))


def text_tokens(block_size: int, around: Around) -> int:
    """Return how many tokens of text a window of `block_size` has.

    Raises:
        UsageError: not enough to predict one.
    """
    size = block_size - len(around.before)
    least = max(2, len(around.before) + 1)
    if block_size < least:
        raise UsageError(
            f"block size is {block_size}", expected=f"at least {least} tokens, so that one of them can be predicted"
        )
    return size


def pack_text(text: Text | str, tokenizer: Any, block_size: int, *, max_tokens: int | None = None) -> torch.Tensor:
    """Tokenize `text` and pack it into windows, int64 `[windows, block_size]`.

    Every window begins with what the tokenizer puts in front of a text, such as BOS, and the rest of it is text. The
    windows follow each other without a gap, and what does not fill another one is dropped.

    Args:
        text: any length; see `tokenize` for documents.
        tokenizer: the model's own tokenizer.
        block_size: tokens of one window.
        max_tokens: use at most so many tokens, those in front of the windows included.

    Raises:
        InputError: the text is too short for one window; the message says how many tokens there are and are needed.
        UsageError: `max_tokens` does not allow one window.
    """
    around = Around.of(tokenizer)
    size = text_tokens(block_size, around)
    if max_tokens is not None and max_tokens < block_size:
        raise UsageError(
            f"max_tokens={max_tokens} is less than one block of {block_size} tokens",
            expected=f"at least {block_size}",
            hint="raise max_tokens or lower the block size",
        )
    wanted = None if max_tokens is None else max_tokens // block_size * size
    return pack_tokens(tokenize(text, tokenizer, max_tokens=wanted), block_size, around)


def require_varied(tokens: torch.Tensor, what: str) -> None:
    """Check that a text is not one token over and over, from which no importance or score can be learnt.

    Args:
        tokens: int64, any shape.
        what: names the text.

    Raises:
        InputError: more than 95 % of the tokens are the same one.
    """
    import torch

    values, counts = torch.unique(tokens, return_counts=True)
    if counts.max() > _MOST * tokens.numel():
        raise InputError(
            f"{int(counts.max()):,} of the {tokens.numel():,} tokens of {what} are the token {int(values[counts.argmax()])}",
            expected=f"text in which no token makes up more than {_MOST:.0%}",
            hint="give text of the kind that the model is used for, and check that the tokenizer belongs to the model",
        )


def _encode(text: str, tokenizer: Any) -> list[int]:
    # verbose=False: a text longer than the model's context is what is wanted here, so no warning about it.
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids
