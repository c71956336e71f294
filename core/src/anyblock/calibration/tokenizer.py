"""Load a model's own tokenizer, and write conversations with its template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from anyblock.checkpoint.files import open_regular
from anyblock.checkpoint.remote_code import require_trust
from anyblock.contract.trust import is_trusted
from anyblock.errors import InputError


def load_tokenizer(path: str | Path) -> Any:
    """Return the tokenizer of a model directory; nothing is downloaded.

    Raises:
        InputError: there is no such directory, it holds no tokenizer, or its files cannot be read.
    """
    from transformers import AutoTokenizer

    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path} is not a directory", expected="a model directory with its tokenizer files")
    for file in filter(Path.is_file, path.glob("*token*")):
        with open_regular(file, error=InputError):
            pass  # git-lfs left no pointer there
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True, trust_remote_code=is_trusted())
    except (AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        if not any(path.glob("*token*")):
            raise _missing(path) from error
        if "custom code" in str(error):
            named = json.loads((path / "tokenizer_config.json").read_bytes())["auto_map"]["AutoTokenizer"]
            require_trust(path, filter(None, [named] if isinstance(named, str) else named))
        raise InputError(
            f"the tokenizer in {path} cannot be loaded: {(str(error).strip() or type(error).__name__).splitlines()[0]}",
            expected="the tokenizer files of a Hugging Face model (tokenizer.json, tokenizer_config.json)",
            hint="copy them from the original model again",
        ) from error
    # transformers builds an empty tokenizer when it knows the class and finds no vocabulary.
    files = set((tokenizer.vocab_files_names or {}).values())
    if files and not any((path / name).exists() for name in files):
        raise _missing(path)
    return tokenizer


def written(messages: list[dict[str, str]], tokenizer: Any) -> str:
    """Write a conversation with the tokenizer's chat template; without one, its turns on lines of their own.

    Args:
        messages: `[{"role": "user", "content": "..."}, ...]`.
        tokenizer: a transformers tokenizer.
    """
    if not getattr(tokenizer, "chat_template", None):
        return "\n".join(message["content"] for message in messages)
    text: str = tokenizer.apply_chat_template(messages, tokenize=False)
    return text


def _missing(path: Path) -> InputError:
    return InputError(
        f"{path} has no tokenizer",
        expected="tokenizer.json (or tokenizer.model, vocab.json ...) next to config.json",
        hint="copy the tokenizer files of the original model there, or name a tokenizer explicitly",
    )
