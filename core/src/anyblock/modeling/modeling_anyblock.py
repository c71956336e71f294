"""Stock transformers classes whose decoder layers differ in shape, built from what `config.json` says about each layer.

AnyBlock's export puts this file, `layer_scope`, `layer_config`, `no_op`, `nothing` and `linear_half` next to the weights,
where transformers runs them with `trust_remote_code=True`. They need torch and transformers, and not AnyBlock. Where
AnyBlock is imported, its own copy of them is used, without `trust_remote_code`.

`modeling_anyblock.LlamaForCausalLM` is a subclass of transformers' `LlamaForCausalLM`, and so on for every other name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import transformers
from torch import nn

from .layer_scope import layer_scope
from .linear_half import STAND_INS


def __getattr__(name: str) -> type[Any]:
    stock = None if name.startswith("_") else getattr(transformers, name, None)
    if not isinstance(stock, type) or not issubclass(stock, transformers.PreTrainedModel):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")  # noqa: TRY004 - the protocol of modules
    made: type[Any] = globals().setdefault(name, with_own_layers(stock, __name__))
    return made


def with_own_layers(stock: type[Any], module: str) -> type[Any]:
    """Return the class that builds its layers as `anyblock_layers` says; it is to be found in `module` by the same name."""

    class Child(stock):  # type: ignore[misc]
        """The stock class, with layers as `anyblock_layers` in the configuration describes them."""

        # This file and those it imports go along when it is saved.
        _auto_class = "AutoModelForCausalLM" if issubclass(stock, transformers.GenerationMixin) else "AutoModel"

        def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
            layers = getattr(config, "anyblock_layers", None)
            if layers is None:
                super().__init__(config, *args, **kwargs)
                return
            home = sys.modules[stock.__module__]
            classes = [getattr(home, name) for name in config.anyblock_layer_classes]
            # transformers refuses to read what layers differ in from the model's configuration, where stock code does.
            config.get_text_config(decoder=True).allow_global_per_layer_attribute_access = True
            with layer_scope(classes, lambda cls, _, index: _plan(layers, cls, index)):
                super().__init__(config, *args, **kwargs)

        @classmethod
        def is_custom_code(cls) -> bool:
            """Return what the stock class does: its tensors have the same names in files, when they are loaded and when saved."""
            return bool(stock.is_custom_code())

        @classmethod
        def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
            """Load as transformers does, and raise where it would go on with weights that are not in the checkpoint."""
            model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
            faults = {kind: info[kind] for kind in ("missing_keys", "mismatched_keys", "error_msgs") if info.get(kind)}
            if faults:
                raise RuntimeError(
                    f"the checkpoint does not have the weights that its configuration asks for: {faults}"
                )
            return (model, info) if output_loading_info else model

        def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
            """Save as transformers does; what is saved loads as this did."""
            config = self.config.get_text_config(decoder=True)
            vars(config).pop("allow_global_per_layer_attribute_access", None)
            try:
                super().save_pretrained(*args, **kwargs)
            finally:
                config.allow_global_per_layer_attribute_access = True

    Child.__name__ = Child.__qualname__ = stock.__name__
    Child.__module__ = module
    return Child


def _plan(
    layers: list[Mapping[str, Any]], cls: type[nn.Module], index: int
) -> tuple[Mapping[str, Any], Callable[[nn.Module], None]]:
    if index >= len(layers):
        raise RuntimeError(f"a {cls.__name__} is built with the index {index}; the checkpoint has {len(layers)} layers")
    layer = layers[index]
    return layer["config"], lambda built: _remove(built, layer["no_ops"])


def _remove(layer: nn.Module, no_ops: Mapping[str, Mapping[str, Any]]) -> None:
    for path, no_op in no_ops.items():
        options = {name: value for name, value in no_op.items() if name != "kind"}
        owner, _, name = path.rpartition(".")
        setattr(
            layer.get_submodule(owner), name, STAND_INS[no_op["kind"]].replacing(layer.get_submodule(path), **options)
        )
