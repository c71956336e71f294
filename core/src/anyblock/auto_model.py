"""transformers' `Auto` classes load children without remote code, exported or not, after `register_auto_classes()`.

`anyblock.load_model` calls that as well; an import never does.

Everything that `AutoModelForCausalLM` and its like build goes through one function that picks the class for a configuration.
"""

from __future__ import annotations

import functools
from contextlib import suppress
from pathlib import Path
from typing import Any

from anyblock.contract.trust import CODE
from anyblock.errors import UnsupportedModelError
from anyblock.modeling import load


def register_auto_classes() -> None:
    """Let the `Auto` classes build the layers that a child's configuration describes (`anyblock_layers`, `block_configs`).

    It holds for this process. Other configurations get the class that they always get. Calling it again changes nothing.

    Raises:
        UnsupportedModelError: this version of transformers picks its classes in another way.
    """
    import transformers
    from transformers.models.auto import auto_factory

    stock_class = getattr(auto_factory, "_get_model_class", None)
    if stock_class is None:  # a private name
        raise UnsupportedModelError(
            f"the Auto classes of transformers {transformers.__version__} cannot be taught to load children",
            expected="a version of transformers with transformers.models.auto.auto_factory._get_model_class",
            hint="load the child with anyblock.load_model, or its export with trust_remote_code=True",
        )
    if hasattr(stock_class, "__wrapped__"):
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

        own = stock.__module__.startswith(f"{CODE}.")
        return modeling_anyblock.with_own_layers(stock, CODE) if own else getattr(modeling_anyblock, stock.__name__)

    auto_factory._get_model_class = class_for


@functools.wraps(load.load_model)
def load_model(path: Path | str, **options: Any) -> Any:
    """See `anyblock.modeling.load.load_model`; from then on the `Auto` classes load what the model saves."""
    with suppress(UnsupportedModelError):  # of transformers' classes, not of the model
        register_auto_classes()
    return load.load_model(path, **options)
