"""From what a user names to a `model_type`."""

from __future__ import annotations

from pathlib import Path

from anyblock.checkpoint.config import read_config


def model_type_of(model: str) -> str:
    """Return the `model_type` of a checkpoint's directory or a `config.json`; any other text is one itself.

    Raises:
        ConfigError: the file cannot be used.
    """
    path = Path(model).expanduser()
    return str(read_config(path)["model_type"]) if path.exists() else model
