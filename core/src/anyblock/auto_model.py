"""transformers' `Auto` classes load children without remote code, exported or not, once AnyBlock is imported.

Everything that `AutoModelForCausalLM` and its like build goes through one function that picks the class for a
configuration. It is extended when transformers defines it, so that importing AnyBlock does not import transformers.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from types import ModuleType
from typing import Any, Final

_FACTORY: Final = "transformers.models.auto.auto_factory"


def extend_auto_classes() -> None:
    """Let the `Auto` classes build the layers that a child's configuration describes (`anyblock_layers`, `block_configs`).

    Other configurations get the class that they always get. Calling it again changes nothing.
    """
    if _FACTORY in sys.modules:
        _extend(sys.modules[_FACTORY])
    elif not any(isinstance(finder, _WhenImported) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WhenImported())


class _WhenImported:
    """A finder that extends the module when it is imported, and leaves finding it to the others."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return the factory's spec with a loader that extends the module; None for every other name."""
        if name != _FACTORY:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                _extend(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _extend(factory: Any) -> None:
    # A private name: a transformers that has it no more must still be importable, and then wants `trust_remote_code`.
    stock_class = getattr(factory, "_get_model_class", None)
    if stock_class is None or hasattr(stock_class, "__wrapped__"):
        return

    @functools.wraps(stock_class)
    def class_for(config: Any, mapping: Any) -> Any:
        """Return the stock class, or the one that builds its layers as the configuration of a child says."""
        stock = stock_class(config, mapping)
        if getattr(config, "anyblock_layers", None) is None:
            blocks = getattr(config, "block_configs", None)
            if not (isinstance(blocks, list) and blocks and all({"attention", "ffn"} <= set(own) for own in blocks)):
                return stock
            from anyblock.export.transformers_format import describe_layers

            describe_layers(config)
        from anyblock.modeling import modeling_anyblock

        return getattr(modeling_anyblock, stock.__name__)

    factory._get_model_class = class_for
