"""Read text and pack it into blocks of tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyblock.errors import InputError, UsageError

if TYPE_CHECKING:
    import torch

_CHARACTERS_PER_TOKEN = 8
_MARGIN_TOKENS = 64
_MOST = 0.95


def read_text(path: str | Path) -> str:
    """Return the text of a UTF-8 file; of a `.jsonl` file, the `text` fields of its lines joined by an empty line.

    Raises:
        InputError: the file is missing, unreadable, not UTF-8, empty, or a JSON line has no string under `text`.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"text file {path} does not exist", expected="a UTF-8 text file or a .jsonl file") from error
    except OSError as error:
        raise InputError(
            f"text file {path} cannot be read: {error.strerror}", expected="a readable text file"
        ) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}",
            expected="UTF-8 text",
            hint=f"convert it, for instance with: iconv -f LATIN1 -t UTF-8 {path}",
        ) from error
    if path.suffix.lower() in {".jsonl", ".ndjson"}:
        text = "\n\n".join(_documents(text, path))
    if not text.strip():
        raise InputError(f"{path} holds no text", expected="a file with some text in it")
    return text


def _documents(lines: str, path: Path) -> list[str]:
    documents = []
    for number, line in enumerate(lines.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{path}, line {number}: not JSON ({error.msg})", expected="one JSON object a line"
            ) from error
        if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
            raise InputError(f"{path}, line {number}: no string under 'text'", expected='{"text": "..."} on every line')
        documents.append(entry["text"])
    return documents


def calibration_split(text: str, fraction: float = 0.7) -> tuple[str, str]:
    """Cut one text in two, so that what a child is evaluated on was never calibrated on.

    Args:
        text: all there is.
        fraction: the share of characters that goes to calibration; the cut is moved to the nearest line border.

    Returns:
        `(calibration text, evaluation text)`; joined they are the whole text.

    Raises:
        InputError: the text has no line border to cut at, so that one part would be empty.
    """
    if not 0.0 < fraction < 1.0:
        raise UsageError(f"calibration fraction is {fraction}", expected="a number between 0 and 1, both excluded")
    target = round(len(text) * fraction)
    before = text.rfind("\n", 0, target) + 1
    after = text.find("\n", target) + 1 or len(text)
    cut = before if target - before <= after - target else after
    if not text[:cut].strip() or not text[cut:].strip():
        cut = after if cut == before else before
    calibration, evaluation = text[:cut], text[cut:]
    if not calibration.strip() or not evaluation.strip():
        raise InputError(
            f"the text ({len(text)} characters) has no line border between its calibration and its evaluation part",
            expected="at least two lines of text",
            hint="give a separate file for evaluation",
        )
    return calibration, evaluation


def tokenize(text: str, tokenizer: Any, *, max_tokens: int | None = None) -> torch.Tensor:
    """Return the token ids of `text`, int64 `[tokens]`.

    Tokens that the tokenizer puts in front of a text (a beginning-of-sequence token) come once, at the very start;
    tokens it would put behind are left out. With `max_tokens` only as much text as is needed is tokenized.

    Args:
        text: any length.
        tokenizer: a transformers tokenizer.
        max_tokens: return at most so many tokens, the prefix included.
    """
    import torch

    prefix = _prefix(tokenizer)
    if max_tokens is None:
        return torch.tensor(prefix + _encode(text, tokenizer), dtype=torch.long)
    characters = max(4096, max_tokens * _CHARACTERS_PER_TOKEN)
    while True:
        # The tokens at a cut may differ from those of the whole text, so some more than wanted have to be there.
        border = text.find("\n", characters) + 1 or len(text)
        ids = prefix + _encode(text[:border], tokenizer)
        if border == len(text) or len(ids) >= max_tokens + _MARGIN_TOKENS:
            return torch.tensor(ids[:max_tokens], dtype=torch.long)
        characters *= 2


def pack_tokens(tokens: torch.Tensor, block_size: int) -> torch.Tensor:
    """Cut tokens `[tokens]` into `[tokens // block_size, block_size]`, back to back; the remainder is dropped.

    Raises:
        InputError: there are fewer tokens than one block needs.
    """
    if block_size < 2:
        raise UsageError(
            f"block size is {block_size}", expected="at least 2 tokens, so that one of them can be predicted"
        )
    blocks = len(tokens) // block_size
    if blocks == 0:
        raise InputError(
            f"the text has {len(tokens)} tokens, too few for one block of {block_size}",
            expected=f"at least {block_size} tokens",
            hint="use a longer text or a smaller block size",
        )
    return tokens[: blocks * block_size].view(blocks, block_size)


def pack_text(text: str, tokenizer: Any, block_size: int, *, max_tokens: int | None = None) -> torch.Tensor:
    """Tokenize `text` and pack it into blocks, int64 `[num_blocks, block_size]`.

    See `tokenize` for special tokens. The blocks follow each other without a gap, and what does not fill another block
    is dropped.

    Args:
        text: any length.
        tokenizer: the model's own tokenizer.
        block_size: tokens of one block.
        max_tokens: use at most so many tokens.

    Raises:
        InputError: the text is too short for one block; the message says how many tokens there are and are needed.
        UsageError: `max_tokens` does not allow one block.
    """
    if max_tokens is not None and max_tokens < block_size:
        raise UsageError(
            f"max_tokens={max_tokens} is less than one block of {block_size} tokens",
            expected=f"at least {block_size}",
            hint="raise max_tokens or lower the block size",
        )
    return pack_tokens(tokenize(text, tokenizer, max_tokens=max_tokens), block_size)


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


def _prefix(tokenizer: Any) -> list[int]:
    plain = _encode("a", tokenizer)
    full: list[int] = tokenizer("a", add_special_tokens=True, verbose=False)["input_ids"]
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return full[:start]
    return []
