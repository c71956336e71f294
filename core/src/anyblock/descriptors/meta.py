"""Models on the meta device that descriptors look things up in, built once for a configuration."""

from __future__ import annotations

import copy
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from anyblock.contract.cache_spec import CacheSpec


class ConfigKey:
    """A configuration as a key: two are the same when they state the same.

    Args:
        config: a Hugging Face configuration or the view of a `config.json`.
    """

    def __init__(self, config: Any) -> None:
        self.config = config.resolve() if hasattr(config, "resolve") else config
        own = {name: value for name, value in self.config.to_dict().items() if name not in _OF_THE_FILE}
        self._text = json.dumps(own, sort_keys=True, default=str)

    def __hash__(self) -> int:
        return hash(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConfigKey) and self._text == other._text


_OF_THE_FILE = ("dtype", "torch_dtype", "transformers_version", "_name_or_path", "architectures", "block_configs")


def stock_model(key: ConfigKey) -> Any:
    """Return a new model as transformers builds it, on the meta device in bfloat16."""
    import torch

    from anyblock.modeling.skeleton import model_class

    own = copy.deepcopy(key.config)
    with torch.device("meta"):
        return model_class(own)._from_config(own, dtype=torch.bfloat16).eval()


@lru_cache(maxsize=16)
def layer_parameters(key: ConfigKey, layers_path: str) -> tuple[frozenset[str], ...]:
    """Return the names of every decoder layer's parameters and buffers."""
    return tuple(frozenset(layer.state_dict()) for layer in stock_model(key).get_submodule(layers_path))


class _Descriptor(Protocol):
    """What of a `DescriptorBase` is asked here, whose own file imports this one."""

    @property
    def layers_path(self) -> str: ...

    def offers(self, capability: str) -> bool: ...

    def mlp_no_op_post_init(self, decoder_layer: Any) -> Any: ...


@lru_cache(maxsize=16)
def layer_caches(key: ConfigKey, descriptor: _Descriptor, ffn: bool = True) -> tuple[CacheSpec, ...]:
    """Return what every decoder layer keeps between decoding steps, as the model shows it (see `measured_caches`).

    Args:
        key: the configuration.
        descriptor: which module is the ffn.
        ffn: whether layers have one, which may keep something as well (Inkling's convolution).

    Raises:
        UnsupportedModelError: the model shows no cache on the meta device.
    """
    from anyblock.costs.probed_cache import measured_caches
    from anyblock.modeling.no_op import NoOpFFN, layer_index_of

    model = stock_model(key)
    layers = model.get_submodule(descriptor.layers_path)
    if descriptor.offers("ffn_no_op"):  # which experts a token goes to cannot be said on the meta device
        for layer in layers:
            kept = {name: module for name, module in layer.named_modules() if layer_index_of(module) is not None}
            descriptor.mlp_no_op_post_init(layer)
            for name, module in kept.items() if ffn else ():
                owner, _, leaf = name.rpartition(".")
                if name and isinstance(layer.get_submodule(name), NoOpFFN):
                    setattr(layer.get_submodule(owner), leaf, module)
    return tuple(measured_caches(model, list(layers)))
