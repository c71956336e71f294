"""Model classes that come as code with a checkpoint: `auto_map` of its `config.json` names them.

transformers' own loader makes new modules for every folder, so that a teacher and its child would have different classes, and
an adapter could name neither. Here all folders with the same code share the modules of one package.
"""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from anyblock.contract.trust import CODE, code_refused, is_trusted
from anyblock.errors import AnyBlockError, CheckpointError, ConfigError
from anyblock.family import register_classes

EXPORTED: Final = "modeling_anyblock"
"""What the names of the modules begin with that an export adds; the class there derives from the checkpoint's own."""
_AUTO: Final = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForImageTextToText")
_sources: Final[dict[str, bytes]] = {}
"""The content of every module that was run, by its name."""


def admit_code(config: Mapping[str, Any], folder: Path) -> None:
    """Register the classes of a checkpoint with transformers, where these come as code and nothing installed has them.

    Args:
        config: the content of its `config.json`.
        folder: its directory.

    Raises:
        InputError: the code may not run here (see `trusting`), or this process has run other code for the same model type.
        CheckpointError: the code fails, or is not that of a model.
    """
    stated, model_type = config.get("auto_map"), config["model_type"]
    named = {name: stated[name] for name in _AUTO if name in stated} if isinstance(stated, dict) else {}
    named = {name: str(own) for name, own in named.items() if name == "AutoConfig" or f"{EXPORTED}." not in str(own)}
    if not named:
        return
    from transformers import CONFIG_MAPPING

    register_classes(model_type)
    files = ", ".join(dict.fromkeys(f"{own.rpartition('.')[0].replace('.', '/')}.py" for own in named.values()))
    package = f"{CODE}." + re.sub(r"\W", "_", model_type)
    if model_type in CONFIG_MAPPING and not CONFIG_MAPPING[model_type].__module__.startswith(f"{CODE}."):
        if is_trusted():
            warnings.warn(
                f"{folder}: the installed classes for {model_type!r} are used, not those in {files}", stacklevel=3
            )
        return
    if "AutoConfig" not in named:
        return
    if not is_trusted():
        raise code_refused(folder, files)
    try:
        _register(model_type, {name: _class(package, own, folder) for name, own in named.items()})
    except AnyBlockError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"the code of {folder} ({files}) fails: {type(error).__name__}: {error}",
            hint="install what it imports" if isinstance(error, ImportError) else "",
        ) from error


def _register(model_type: str, classes: dict[str, type[Any]]) -> None:
    import transformers

    config = classes["AutoConfig"]
    for name, cls in classes.items():
        auto = getattr(transformers, name)
        auto.register(*((model_type, config) if name == "AutoConfig" else (config, cls)), exist_ok=True)
        cls.register_for_auto_class(name)  # `save_pretrained` writes the code as well


def _class(package: str, reference: str, folder: Path) -> type[Any]:
    """Return the class that `module.Class` names, of a module in `folder` or of one with the same content."""
    module, _, name = reference.rpartition(".")
    if "--" in module or not all(map(str.isidentifier, [*module.split("."), name])):
        raise ConfigError(
            f"{folder}: auto_map names {reference!r}", expected="MODULE.CLASS, of a file next to config.json"
        )
    home = sys.modules.setdefault(package, ModuleType(package))
    for known in [known for known in _sources if known.startswith(f"{package}.")]:
        file = folder / f"{known.removeprefix(f'{package}.').replace('.', '/')}.py"
        if file.is_file() and file.read_bytes() != _sources[known]:
            raise ConfigError(
                f"{file} is not the code that this process has run for such models",
                hint="open models of one type with different code in processes of their own",
            )
    home.__path__ = list(dict.fromkeys([str(folder), *getattr(home, "__path__", [])]))
    importlib.invalidate_caches()
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # the folder stays as it is
    try:
        found: type[Any] = getattr(importlib.import_module(f"{package}.{module}"), name)
    finally:
        sys.dont_write_bytecode = writes
    for own, loaded in list(sys.modules.items()):
        if own.startswith(f"{package}.") and own not in _sources and getattr(loaded, "__file__", None):
            _sources[own] = Path(str(loaded.__file__)).read_bytes()
    return found.__bases__[0] if module.startswith(EXPORTED) else found
