"""AnyBlock: compress a Hugging Face causal language model by giving every decoder layer its own shape.

The public names are imported on first use, so that `import anyblock` stays cheap and loads neither torch nor a plugin.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from anyblock.version import VERSION

if TYPE_CHECKING:
    from anyblock.auto_model import load_model, register_auto_classes
    from anyblock.conversion.convert import convert_model
    from anyblock.evaluation.evaluate import evaluate
    from anyblock.export.export import export_child
    from anyblock.family import get_family
    from anyblock.pipeline.compress import compress

__version__ = VERSION
__all__ = [
    "__version__",
    "compress",
    "convert_model",
    "evaluate",
    "export_child",
    "get_family",
    "load_model",
    "register_auto_classes",
]

_HOME = {
    "compress": "anyblock.pipeline.compress",
    "convert_model": "anyblock.conversion.convert",
    "evaluate": "anyblock.evaluation.evaluate",
    "export_child": "anyblock.export.export",
    "get_family": "anyblock.family",
    "load_model": "anyblock.auto_model",
    "register_auto_classes": "anyblock.auto_model",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
