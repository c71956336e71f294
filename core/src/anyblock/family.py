"""The typed handle on one family: its descriptor and the installed extensions behind plain methods."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Self

from anyblock import extensions as _extensions
from anyblock.contract.blocks import BlockConfig
from anyblock.contract.capabilities import CAPABILITIES, Capability
from anyblock.errors import UnsupportedModelError, UsageError, nearest
from anyblock.extensions import Extensions
from anyblock.plugins import results
from anyblock.plugins.contract import SPECS
from anyblock.plugins.loading import instance_of
from anyblock.plugins.registry import PluginRegistry, builtins
from anyblock.plugins.relay import BadResultError, Registered, admit
from anyblock.plugins.status import Origin

if TYPE_CHECKING:
    import torch
    from torch import nn

    from anyblock.contract.cache_spec import CacheSpec
    from anyblock.contract.residual_pruning import ResidualPruning


INFERRED: Final = "auto:"
"""In front of a `model_type` or a path: infer the family instead of looking for an adapter."""


def get_family(model_type: str, *, registry: PluginRegistry | None = None) -> ModelFamily:
    """Return the family that serves a `model_type`, from the installed distributions.

    Only its adapter and the extensions are imported.

    Args:
        model_type: as `config.json` names it; `auto:MODEL_TYPE` or `auto:PATH` infers a family instead (see
            `FamilySpec.infer_family`), whatever adapters are installed.
        registry: where to look; what is installed, under the environment's settings, when not given.

    Raises:
        UnsupportedModelError: no installed adapter serves it; the message says which one would, and how to write one.
        PluginError: the adapter is blocked, incompatible, conflicting or broken.
    """
    if model_type.startswith(INFERRED):
        named = model_type.removeprefix(INFERRED)
        return _inferred(named, named)
    found = _extensions.installed_plugins() if registry is None else registry
    scope = _INFERRING.get()
    if scope is not None and registry is None:
        try:
            found.provider(model_type)
        except UnsupportedModelError:
            inferred = _inferred(model_type, scope.models.get(model_type))
            scope.note(
                f"no adapter for {model_type!r} is installed; its structure was inferred on tiny models: "
                f"{', '.join(name for name, capability in inferred.capabilities().items() if capability)}"
            )
            return inferred
    return ModelFamily(
        found.load(model_type), found.extensions(model_type), model_type=model_type, strict=found.settings.strict
    )


def register_classes(model_type: str) -> None:
    """Let an installed adapter bring the classes of a model type that transformers lacks; see `FamilySpec.model_classes`."""
    from transformers import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING and model_type in _extensions.installed_plugins().model_types:
        get_family(model_type)


def add_classes(model_type: str, classes: Mapping[str, type[Any]]) -> None:
    """Register the classes of a model type with transformers, by the names of the `Auto` classes that find them."""
    import transformers

    for auto, cls in classes.items():
        key = model_type if auto == "AutoConfig" else classes["AutoConfig"]
        getattr(transformers, auto).register(key, cls, exist_ok=True)


@contextmanager
def inferring_families(note: Callable[[str], None]) -> Iterator[Inferring]:
    """Within this scope `get_family` infers a family that no installed adapter serves.

    Args:
        note: is called with a sentence that says that no adapter is installed, and what was inferred; once for every model type.
    """
    noted: set[str] = set()

    def once(text: str) -> None:
        if text not in noted:
            noted.add(text)
            note(text)

    scope = Inferring(once)
    token = _INFERRING.set(scope)
    try:
        yield scope
    finally:
        _INFERRING.reset(token)


def is_inferring() -> bool:
    """Return whether this is within the scope of `inferring_families`."""
    return _INFERRING.get() is not None


@dataclass
class Inferring:
    """What families are inferred from within the scope of `inferring_families`.

    Attributes:
        note: is called with what was inferred.
        models: `{model_type: model}`, checkpoints whose own configurations are looked at.
    """

    note: Callable[[str], None]
    models: dict[str, str] = field(default_factory=dict)


_INFERRING: ContextVar[Inferring | None] = ContextVar("anyblock_infer", default=None)


@lru_cache(maxsize=16)
def _inferred(model_type: str, model: str | None) -> ModelFamily:
    """Return the family that the first installed extension which infers families finds; kept, for it takes seconds."""
    installed = _extensions.installed_plugins()
    descriptor = _extensions.installed_extensions().infer_family(model_type, model)
    if descriptor is None:
        raise UnsupportedModelError(
            f"no installed extension infers the family of {model or model_type!r}",
            expected="one with the hook infer_family",
            hint="python -m pip install anyblock-new-family",
        )
    own = getattr(descriptor, "model_type", model_type)
    around = installed.extensions(own)
    return ModelFamily(_given(descriptor, own), around, model_type=own, strict=installed.settings.strict)


def _given(plugin: object, name: str) -> Registered:
    cls = plugin if isinstance(plugin, type) else type(plugin)
    origin = Origin(f"{cls.__module__}.{cls.__qualname__}", "(given)", name)
    return admit(instance_of(plugin, origin), origin)


class ModelFamily(Extensions):
    """One family: every hook of `FamilySpec` as a method of the same name, or as `named(KIND)`, with its result checked.

    A hook that raises becomes a `PluginError` naming the plugin, its distribution and version, and the hook; so does a
    result that is not what the spec says. An `AnyBlockError` that a plugin raises about its input passes through.

    Attributes:
        model_type: the Hugging Face `model_type` it serves.
        distribution: the distribution of its adapter.
        version: that distribution's version.
    """

    def __init__(
        self, descriptor: Registered, extensions: Iterable[Registered] = (), *, model_type: str, strict: bool = False
    ) -> None:
        self.model_type: Final = model_type
        self.distribution: Final = descriptor.origin.distribution
        self.version: Final = descriptor.origin.version
        self._descriptor: Final = descriptor
        super().__init__(extensions, descriptor=descriptor, strict=strict)
        if classes := self.model_classes():
            self._relay.check("model_classes", self._register, classes)

    def _register(self, classes: dict[str, type[Any]]) -> None:
        try:
            add_classes(self.model_type, classes)
        except (AttributeError, TypeError, ValueError) as error:
            raise BadResultError(f"returned what transformers refuses: {error}", "classes of a model") from error

    @classmethod
    def from_descriptor(cls, descriptor: object, *, model_type: str, extensions: Iterable[object] = ()) -> Self:
        """Build a family from a descriptor (an instance or a class) at hand, without looking at what is installed.

        Raises:
            PluginError: the descriptor or an extension breaks the contract.
        """
        around = [_given(extension, str(index)) for index, extension in enumerate(extensions)]
        around = [extension for extension in around if extension.concerns is None or model_type in extension.concerns]
        return cls(_given(descriptor, model_type), [builtins(), *around], model_type=model_type, strict=True)

    def __repr__(self) -> str:
        return f"ModelFamily({self.model_type!r}, {self.distribution} {self.version})"

    @property
    def descriptor(self) -> object:
        """The descriptor object itself, for tests and reports; call its hooks through this family."""
        return self._descriptor.plugin

    # -- what the family can do -------------------------------------------------------------------------------------

    def implements(self, hook: str) -> bool:
        """Return whether the adapter or an extension answers this hook.

        Raises:
            UsageError: there is no such hook.
        """
        if hook not in SPECS:
            raise UsageError(f"unknown hook {hook!r}", expected="a hook of FamilySpec", hint=nearest(hook, SPECS))
        return self._relay.implements(hook)

    def capabilities(self) -> dict[str, Capability]:
        """Return the declared state of every capability; one that is not declared is unknown."""
        return self._relay.call("capabilities", results.capabilities)

    def capability(self, name: str) -> Capability:
        """Return the declared state of one capability.

        Raises:
            UsageError: there is no such capability.
        """
        if name not in CAPABILITIES:
            expected = ", ".join(CAPABILITIES)
            raise UsageError(f"unknown capability {name!r}", expected=expected, hint=nearest(name, CAPABILITIES))
        return self.capabilities()[name]

    def supports(self, capability: str) -> bool:
        """Return whether a capability is declared as full or partial.

        Raises:
            UsageError: there is no such capability.
        """
        return bool(self.capability(capability))

    # -- structure of a checkpoint ----------------------------------------------------------------------------------

    def layer_name_predicates(self, num_layers: int, config: Any = None) -> dict[str, re.Pattern[str]]:
        """See `FamilySpec.layer_name_predicates`."""
        self._require("layer_name_predicates")
        return self._relay.call("layer_name_predicates", results.predicates, num_layers=num_layers, config=config)

    def create_block_configs(self, config: Any) -> list[BlockConfig]:
        """See `FamilySpec.create_block_configs`; one entry for each of the config's `num_hidden_layers`."""
        self._require("create_block_configs")
        layers = getattr(self.language_model_config(config), "num_hidden_layers", None)
        check = results.block_configs(layers if isinstance(layers, int) else None)
        return self._relay.call("create_block_configs", check, config=config)

    def block_config_to_layer_overrides(self, block_config: BlockConfig) -> dict[str, Any]:
        """See `FamilySpec.block_config_to_layer_overrides`."""
        self._require("block_config_to_layer_overrides")
        return self._relay.call("block_config_to_layer_overrides", results.overrides, block_config=block_config)

    def convert_weight_name(self, name: str) -> str:
        """See `FamilySpec.convert_weight_name`; the name itself where the family keeps it."""
        converted = self._relay.raw("convert_weight_name", name=name)
        if converted is None:
            return name
        return self._relay.check("convert_weight_name", results.instance(str, "a tensor name, or None"), converted)

    def dequantize(self, names: Sequence[str], config: Any) -> dict[str, tuple[str, ...]]:
        """See `FamilySpec.dequantize`; an empty dict when nothing has to be computed."""
        return self._relay.call("dequantize", results.dequantized(names), names=names, config=config)

    def dequantize_tensor(self, name: str, sources: Mapping[str, torch.Tensor], config: Any) -> torch.Tensor:
        """See `FamilySpec.dequantize_tensor`."""
        self._require("dequantize_tensor")
        tensor: torch.Tensor = self._relay.call(
            "dequantize_tensor", results.tensor, name=name, sources=sources, config=config
        )
        return tensor

    def language_model_config(self, config: Any) -> Any:
        """See `FamilySpec.language_model_config`."""
        found = self._relay.raw("language_model_config", config=config)
        return config if found is None else found

    # -- structure of a model ---------------------------------------------------------------------------------------

    def model_classes(self) -> dict[str, type[Any]]:
        """See `FamilySpec.model_classes`; an empty dict where transformers has the classes."""
        return self._relay.call("model_classes", results.auto_classes)

    def decoder_layer_cls(self) -> tuple[type[nn.Module], ...]:
        """See `FamilySpec.decoder_layer_cls`; always a tuple."""
        self._require("decoder_layer_cls")
        return self._relay.call("decoder_layer_cls", results.layer_classes)

    def input_embedding_name(self) -> str:
        """See `FamilySpec.input_embedding_name`."""
        return self._path("input_embedding_name")

    def output_embedding_name(self) -> str:
        """See `FamilySpec.output_embedding_name`."""
        return self._path("output_embedding_name")

    def final_norm_name(self) -> str:
        """See `FamilySpec.final_norm_name`."""
        self._require("final_norm_name")
        return self._relay.call("final_norm_name", results.module_path_or_none)

    def layer_block_name(self, index: int) -> str:
        """See `FamilySpec.layer_block_name`."""
        return self._path("layer_block_name", index=index)

    def init_rotary_embedding(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> bool:
        """See `FamilySpec.init_rotary_embedding`."""
        return self._act("init_rotary_embedding", model=model, device=device, dtype=dtype)

    def attn_no_op_post_init(self, decoder_layer: nn.Module) -> bool:
        """See `FamilySpec.attn_no_op_post_init`."""
        return self._act("attn_no_op_post_init", decoder_layer=decoder_layer)

    def mlp_no_op_post_init(self, decoder_layer: nn.Module) -> bool:
        """See `FamilySpec.mlp_no_op_post_init`."""
        return self._act("mlp_no_op_post_init", decoder_layer=decoder_layer)

    def cache_spec(self, config: Any, block_config: BlockConfig, layer_index: int) -> CacheSpec:
        """See `FamilySpec.cache_spec`."""
        from anyblock.contract.cache_spec import CacheSpec

        self._require("cache_spec")
        check = results.instance(CacheSpec, "a CacheSpec")
        return self._relay.call("cache_spec", check, config=config, block_config=block_config, layer_index=layer_index)

    def requires_trust_remote_code(self) -> bool:
        """See `FamilySpec.requires_trust_remote_code`; False where the family does not say."""
        return self._flag("requires_trust_remote_code", default=False)

    def uses_autocast(self) -> bool:
        """See `FamilySpec.uses_autocast`; True where the family does not say."""
        return self._flag("uses_autocast", default=True)

    def residual_stream(self) -> ResidualPruning | None:
        """See `FamilySpec.residual_stream`."""
        from anyblock.contract.residual_pruning import ResidualPruning

        found = self._relay.raw("residual_stream")
        check = results.instance(ResidualPruning, "a ResidualPruning, or None")  # type: ignore[type-abstract]
        return None if found is None else self._relay.check("residual_stream", check, found)

    # -- conformance ------------------------------------------------------------------------------------------------

    def conformance_config(self) -> Any:
        """See `FamilySpec.conformance_config`."""
        self._require("conformance_config")
        return self._relay.call("conformance_config", results.anything)

    # -- helpers ----------------------------------------------------------------------------------------------------

    def _require(self, hook: str) -> None:
        if not self._relay.implements(hook):
            raise UnsupportedModelError(
                f"the adapter for {self.model_type!r}, {self.distribution} {self.version}, does not implement {hook}",
                hint=f"implement FamilySpec.{hook} in the adapter, or use a base from anyblock.descriptors",
            )

    def _path(self, hook: str, **arguments: Any) -> str:
        self._require(hook)
        return self._relay.call(hook, results.module_path, **arguments)

    def _act(self, hook: str, **arguments: Any) -> bool:
        self._require(hook)
        return self._relay.call(hook, results.done, **arguments)

    def _flag(self, hook: str, *, default: bool) -> bool:
        if not self._relay.implements(hook):
            return default
        return self._relay.call(hook, results.instance(bool, "True or False"))
