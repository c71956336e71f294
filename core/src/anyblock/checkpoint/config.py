"""Reading `config.json`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from anyblock.checkpoint.files import inside, plain_directory, read_bounded
from anyblock.checkpoint.parse import parse_object, shown
from anyblock.errors import ConfigError

CONFIG: Final = "config.json"
MAX_CONFIG: Final = 32_000_000
"""Largest `config.json` in bytes; the largest known ones have some 100 kB."""


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the content of a model's `config.json`.

    Args:
        path: the model's directory, or the file itself.

    Raises:
        ConfigError: it is missing, unreadable, too large, not a JSON object, or has no `model_type`.
    """
    given = Path(path)
    if given.suffix == ".json" and not given.is_dir():
        file = given
    else:
        folder = plain_directory(given, error=ConfigError)
        file = inside(folder, CONFIG)
        if not os.path.lexists(file):
            raise ConfigError(f"{folder} has no {CONFIG}", expected="the directory of a Hugging Face model")
    config = parse_object(read_bounded(file, MAX_CONFIG, error=ConfigError), str(file), error=ConfigError)
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        found = "no model_type" if model_type is None else f"the model_type {shown(model_type)}"
        raise ConfigError(f"{file} has {found}", expected='for instance "model_type": "llama"')
    return config
