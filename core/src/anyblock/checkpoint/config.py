"""Reading `config.json`."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Final

from anyblock.checkpoint.files import gguf_hint, inside, plain_directory, read_bounded
from anyblock.checkpoint.json_io import parse_object, shown
from anyblock.errors import CheckpointError, ConfigError
from anyblock.extensions import installed_extensions, installed_plugins

CONFIG: Final = "config.json"
ADAPTER: Final = "adapter_config.json"
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
        CheckpointError: the directory holds an adapter; see `refuse_adapter`. Or its code fails.
        ConfigError: it is missing, unreadable, too large, not a JSON object, has no `model_type`, or holds a number that no
            model has (NaN, an integer of more than 64 bits, millions of layers). Or it needs code that may not run, see
            `admit_code`: whoever reads a configuration has the classes that belong to it.
    """
    given = Path(path)
    if given.suffix == ".json" and not given.is_dir():
        file = given
    else:
        folder = plain_directory(given, error=ConfigError)
        refuse_adapter(folder)
        file = inside(folder, CONFIG)
        if not os.path.lexists(file):
            hint = gguf_hint(folder, sorted(entry.name for entry in folder.iterdir()))
            raise ConfigError(f"{folder} has no {CONFIG}", expected="the directory of a Hugging Face model", hint=hint)
    config = parse_object(read_bounded(file, MAX_CONFIG, error=ConfigError), str(file), error=ConfigError)
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        found = "no model_type" if model_type is None else f"the model_type {shown(model_type)}"
        raise ConfigError(f"{file} has {found}", expected='for instance "model_type": "llama"')
    _check_numbers(config, file)
    if "block_configs" in config and model_type not in installed_plugins().model_types:
        config = installed_extensions().standard_config(config)
    if "auto_map" in config:
        from anyblock.checkpoint.remote_code import admit_code

        admit_code(config, file.parent)
    return config


def refuse_adapter(folder: Path) -> None:
    """Refuse a directory with an adapter of PEFT (LoRA and the like), which transformers would put on top of the weights.

    Raises:
        CheckpointError: says what it is an adapter of, and how to merge it.
    """
    file = folder / ADAPTER
    if not os.path.lexists(file):
        return
    stated = parse_object(read_bounded(inside(folder, ADAPTER), MAX_CONFIG), str(file))
    kind = stated.get("peft_type") or "PEFT"
    base, adapter = str(stated.get("base_model_name_or_path") or "a model that it does not name"), str(folder)
    found, hint = f"an adapter ({kind}) of {base} and no model", ""
    if os.path.lexists(folder / CONFIG):
        base, adapter = str(folder), f"{folder}-adapter"
        found = f"an adapter ({kind}, {ADAPTER}) next to a model"
        hint = f"move adapter_* into {adapter}; the model is then used without it, or "
    raise CheckpointError(
        f"{folder} holds {found}",
        expected="a model with all of its weights, and no adapter, with which or without which it may be meant",
        hint=f"{hint}merge it first:\n"
        '  python -c "from peft import PeftModel as P; from transformers import AutoModelForCausalLM as M; '
        f"P.from_pretrained(M.from_pretrained('{base}', dtype='auto'), '{adapter}').merge_and_unload()"
        f".save_pretrained('{folder}-merged')\"\nand copy the tokenizer files next to the result",
    )


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
