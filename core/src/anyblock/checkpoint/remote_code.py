"""Model classes that come as code with a checkpoint: `auto_map` of its `config.json` names them.

transformers' own loader makes new modules for every folder, so that a teacher and its child would have different classes, and
an adapter could name neither. Here all folders with the same code share the modules of one package.
"""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from anyblock.contract.trust import CODE, is_trusted
from anyblock.errors import CheckpointError, InputError
from anyblock.family import add_classes, register_classes

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
    stated, model_type = config["auto_map"], config["model_type"]
    named = {auto: str(stated[auto]) for auto in _AUTO if auto in stated} if isinstance(stated, dict) else {}
    named = {auto: reference for auto, reference in named.items() if not reference.startswith(f"{EXPORTED}.")}
    if not named:
        return
    from transformers import CONFIG_MAPPING

    register_classes(model_type)
    if model_type in CONFIG_MAPPING and not CONFIG_MAPPING[model_type].__module__.startswith(f"{CODE}."):
        if is_trusted():
            warnings.warn(f"{folder}: the code that comes with it is not used; {model_type!r} is known", stacklevel=3)
    elif "AutoConfig" in named:
        require_trust(folder, named.values())
        package = _package(model_type, folder)
        try:
            classes = {auto: _class(package, reference) for auto, reference in named.items()}
            add_classes(model_type, classes)
            for auto, cls in classes.items():
                cls.register_for_auto_class(auto)  # `save_pretrained` writes the code as well
        except Exception as error:
            raise CheckpointError(
                f"the code that comes with {folder} fails: {type(error).__name__}: {error}",
                hint="install what it imports" if isinstance(error, ImportError) else "",
            ) from error


def require_trust(folder: Path, references: Iterable[str]) -> None:
    """Refuse a checkpoint that needs the code that the references (`module.Class`) name, where none may run."""
    if not is_trusted():
        files = dict.fromkeys(f"{reference.rpartition('.')[0]}.py" for reference in references)
        raise InputError(
            f"{folder} wants to run code that comes with it: {', '.join(files)}",
            hint="read that code, and pass --trust-remote-code (trust_remote_code=True)",
        )


def _package(model_type: str, folder: Path) -> str:
    """Return the package for the code of a model type, in which this folder is looked through first."""
    package = f"{CODE}." + re.sub(r"\W", "_", model_type)
    for known in [known for known in _sources if known.startswith(f"{package}.")]:
        file = folder / f"{known.removeprefix(f'{package}.').replace('.', '/')}.py"
        if file.is_file() and file.read_bytes() != _sources[known]:
            raise InputError(
                f"{file} is not the code that this process has run for {model_type!r} models",
                hint="open models of one type with different code in processes of their own",
            )
    home = sys.modules.setdefault(package, ModuleType(package))
    home.__path__ = list(dict.fromkeys([str(folder), *getattr(home, "__path__", [])]))
    importlib.invalidate_caches()
    return package


def _class(package: str, reference: str) -> type[Any]:
    module, _, name = reference.rpartition(".")
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # the folder stays as it is
    try:
        found: type[Any] = getattr(importlib.import_module(f"{package}.{module}"), name)
    finally:
        sys.dont_write_bytecode = writes
    for own, loaded in list(sys.modules.items()):
        if own.startswith(f"{package}.") and own not in _sources:
            _sources[own] = Path(str(loaded.__file__)).read_bytes()
    return found.__bases__[0] if module.startswith(EXPORTED) else found
