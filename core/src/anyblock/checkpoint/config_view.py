"""A read-only attribute view of a `config.json` that leaves transformers alone until it is needed.

Importing transformers costs some 300 MB and seconds, and most questions about a model are answered by the JSON itself.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from anyblock.checkpoint.config import read_config
from anyblock.errors import ConfigError
from anyblock.family import register_classes

_PLAIN: Final = {"quantization_config", "compression_config", "generation_config"}
_OF_LAYERS: Final = ("block_configs", "anyblock_layers", "anyblock_layer_classes", "per_layer_config")
_RENAMED: Final = {"dtype": "torch_dtype", "torch_dtype": "dtype"}


class ConfigView:
    """The attributes of a model's configuration.

    An attribute that the JSON states is taken from there. One that is missing or null comes from transformers' own
    configuration class, so defaults, derived values and attribute aliases are the real ones. A nested configuration
    (`text_config`) is a view again; other objects are plain dicts. `dtype` is the text in the JSON.

    A configuration class may rewrite what the JSON states (qwen2 clears `sliding_window` unless `use_sliding_window`);
    `resolve` returns that final form.
    """

    __slots__ = ("_data", "_resolve")
    _data: dict[str, Any]
    _resolve: Callable[[], Any]

    def __init__(self, data: Mapping[str, Any], resolve: Callable[[], Any]) -> None:
        object.__setattr__(self, "_data", dict(data))
        object.__setattr__(self, "_resolve", resolve)

    def resolve(self) -> Any:
        """Return transformers' configuration object; do not change it.

        Raises:
            AttributeError: transformers does not know this model type, or not without running its remote code.
            ConfigError: transformers refuses the values.
        """
        return self._resolve()

    def to_dict(self) -> dict[str, Any]:
        """Return a copy of what the JSON states."""
        return copy.deepcopy(self._data)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = self._data.get(name)
        if value is None and name in _RENAMED:
            value = self._data.get(_RENAMED[name])
        if value is None:
            return self._fallback(name)
        if isinstance(value, dict) and _is_config(name, value):
            return ConfigView(value, _Nested(self._resolve, name))
        return copy.deepcopy(value) if isinstance(value, dict | list) else value

    def _fallback(self, name: str) -> Any:
        try:
            return getattr(self.resolve(), name)
        except AttributeError:
            if name in self._data:
                return None
            raise

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"the configuration is read-only; cannot set {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"the configuration is read-only; cannot delete {name!r}")

    def __contains__(self, name: object) -> bool:
        return name in self._data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConfigView) and self._data == other._data

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"ConfigView({json.dumps(self._data, default=repr)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return ConfigView, (self._data, self._resolve)

    def __deepcopy__(self, memo: dict[int, Any]) -> ConfigView:
        return self


@dataclass(frozen=True)
class _Nested:
    """Finds a nested configuration in the resolved outer one."""

    outer: Callable[[], Any]
    name: str

    def __call__(self) -> Any:
        return getattr(self.outer(), self.name)


class _Resolver:
    """Builds transformers' configuration once, on first use."""

    def __init__(self, data: dict[str, Any], folder: Path | None) -> None:
        self.data = data
        self.folder = folder
        self.built: Any = None

    def __call__(self) -> Any:
        if self.built is None:
            self.built = self._build()
        return self.built

    def _build(self) -> Any:
        from huggingface_hub.errors import StrictDataclassError
        from transformers import CONFIG_MAPPING

        model_type = self.data.get("model_type")
        try:
            register_classes(str(model_type))
            if model_type not in CONFIG_MAPPING:
                raise AttributeError(
                    f"config.json does not say it, and transformers knows no defaults of the model type {model_type!r}"
                )
            cls = CONFIG_MAPPING[model_type]
            # Infinity is written as {"__float__": "Infinity"}; only transformers' own reader of files decodes it.
            return cls.from_dict(cls._decode_special_floats(copy.deepcopy(self.data)))
        except (ValueError, TypeError, LookupError, OSError, ImportError, StrictDataclassError) as error:
            where = self.folder or "the configuration"
            raise ConfigError(f"{where}: transformers refuses this {model_type!r} configuration: {error}") from error


def config_view(config: str | os.PathLike[str] | Mapping[str, Any], *, folder: Path | None = None) -> Any:
    """Return a read-only attribute view of a model's configuration; see `ConfigView`.

    Args:
        config: the model's directory, its `config.json`, or the content of that file.
        folder: the model's directory, where the content is given.

    Raises:
        ConfigError: the file cannot be used.
    """
    if isinstance(config, Mapping):
        data = dict(config)
    else:
        data, given = read_config(config), Path(config)
        folder = given if given.is_dir() else given.parent
    data = without_layers(data)
    return ConfigView(data, _Resolver(data, folder))


def without_layers(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a `config.json` without its block configs, and without what an export says of single layers.

    An exported child says twice in what its layers differ; we go by its block configs.
    """
    if "anyblock_layers" not in config:
        return {key: value for key, value in config.items() if key != "block_configs"}
    kept = {key: value for key, value in config.items() if key not in _OF_LAYERS}
    for key, value in kept.items():
        if isinstance(value, dict):  # a multimodal model's text has layers
            kept[key] = {name: own for name, own in value.items() if name not in _OF_LAYERS}
    code = kept.pop("auto_map", None)
    code = code if isinstance(code, dict) else {}
    own = {auto: name for auto, name in code.items() if "modeling_anyblock." not in str(name)}
    return kept | ({"auto_map": own} if own else {})


def layer_view(config: Any, index: int) -> Any:
    """Return a language model's configuration as one layer has it, where it says in what layers differ (`per_layer_config`).

    Args:
        config: a Hugging Face configuration or a view of one.
        index: the layer's.
    """
    if isinstance(config, ConfigView):
        if "per_layer_config" not in config and "global_head_dim" not in config:  # which Gemma 4's class makes it from
            return config
        config = config.resolve()
    return config.per_layer_config[index] if getattr(config, "is_heterogeneous", False) else config


def _is_config(name: str, value: Mapping[str, Any]) -> bool:
    return name not in _PLAIN and (name.endswith("_config") or "model_type" in value)
