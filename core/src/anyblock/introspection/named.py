"""From what a user names to a `model_type`."""

from __future__ import annotations

from pathlib import Path

from anyblock.checkpoint.config import read_config
from anyblock.checkpoint.hub import CONFIG_PATTERNS, resolve_model


def model_type_of(model: str) -> str:
    """Return the `model_type` of a checkpoint's directory, a `config.json` or a hub id (`owner/name`, of which only the
    configuration is fetched); any other text is one itself.

    Raises:
        ConfigError: the file cannot be used.
        InputError: the hub does not have it, does not give it or cannot be reached.
    """
    path = Path(model).expanduser()
    if not path.exists():
        if "/" not in model:
            return model
        path = resolve_model(model, patterns=CONFIG_PATTERNS)
    return str(read_config(path)["model_type"])
