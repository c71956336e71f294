"""Reading `config.json`."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Final

from anyblock.checkpoint.files import inside, plain_directory, read_bounded
from anyblock.checkpoint.parse import parse_object, shown
from anyblock.errors import ConfigError

CONFIG: Final = "config.json"
MAX_CONFIG: Final = 32_000_000
"""Largest `config.json` in bytes; the largest known ones have some 100 kB."""
_LAYERS: Final = {"num_hidden_layers", "num_layers", "n_layer", "n_layers"}
_MAX_LAYERS: Final = 10_000
"""More layers than this, of which configuration classes make lists, are no model's; the largest known ones have some 200."""


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the content of a model's `config.json`.

    Args:
        path: the model's directory, or the file itself.

    Raises:
        ConfigError: it is missing, unreadable, too large, not a JSON object, has no `model_type`, or holds a number that no
            model has (NaN, an integer of more than 64 bits, millions of layers).
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
    _check_numbers(config, file)
    return config


def _check_numbers(config: dict[str, Any], file: Path) -> None:
    rest: list[tuple[str, Any]] = list(config.items())
    while rest:
        name, value = rest.pop()
        if isinstance(value, dict):
            rest.extend(value.items())
        elif isinstance(value, list):
            rest.extend((name, entry) for entry in value)
        elif isinstance(value, float) and math.isnan(value):
            raise ConfigError(f"{file}: {shown(name)} is NaN", expected="a number")
        elif type(value) is int and not -(1 << 63) <= value < 1 << 63:
            raise ConfigError(f"{file}: {shown(name)} is {shown(value)}", expected="an integer of at most 64 bits")
        elif name in _LAYERS and isinstance(value, int | float) and value > _MAX_LAYERS:
            raise ConfigError(f"{file}: {name} is {shown(value)}", expected=f"at most {_MAX_LAYERS:,} layers")
