"""What a name in a configuration may refer to: hooks, mixins and layer descriptors that core or a plugin registered.

A name is looked up, never imported. It is the short class name, the dotted path of a registered class, or one of the
dotted paths by which the reference system (NVIDIA ModelOpt's Puzzletron) knows the same thing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from anyblock.errors import ConfigError, nearest

if TYPE_CHECKING:
    from anyblock.extensions import Extensions
    from anyblock.family import ModelFamily

REFERENCE_FAMILIES: Final[Mapping[str, str]] = {
    "mistral_small": "mistral",
    "nemotron_h_v2": "nemotron_h",
    "qwen3_vl": "qwen3_vl_moe",
}
"""`{the reference's descriptor: model_type}` where the two differ."""
REFERENCE_MIXINS: Final[Mapping[str, str]] = {
    "FFNIntermediatePruningMixIn": "ffn_intermediate",
    "KVHeadsPruningMixIn": "kv_heads",
    "ExpertRemovalPruningMixIn": "experts_removal",
}
"""`{the reference's mixin: kind}`."""
REFERENCE_LAYER_DESCRIPTORS: Final[Mapping[str, str]] = {
    "FFNIntermediateLayerDescriptor": "ffn_intermediate",
    "KVHeadsLayerDescriptor": "kv_heads",
    "ExpertRemovalLayerDescriptor": "experts_removal",
}
"""`{end of a reference layer descriptor's name: kind}`; the family's name stands in front."""
REFERENCE_HOOKS: Final[Mapping[str, tuple[str, ...]]] = {
    "IterativeChannelContributionHook": (),
    "IndependentChannelContributionHook": (),
    "IndependentKvHeadContributionHook": (),
    "LayerNormContributionHook": (),
    "RankedChoiceVotingHook": (),
    "RankedChoiceVotingHookNemotronH": ("RankedChoiceVotingHook",),
    "NemotronHRemoveExpertsIndependentHook": ("MoERemoveExpertsHook",),
    "Qwen3VLRemoveExpertsIndependentHook": ("MoERemoveExpertsHook",),
    "L2NormHook": (),
}
"""`{the reference's hook: hooks here that do the same, should none have that name}`."""
IGNORED_REFERENCES: Final = frozenset({"load_from_disk_fn", "load_streaming_fn"})
"""Functions that the reference's files refer to and that have no meaning here."""

_PACKAGE: Final = r"(?:modelopt\.torch\.(?:puzzletron|_compress)\.)?"
_HOOK_MODULES: Final = re.compile(
    rf"{_PACKAGE}(?:activation_scoring\.activation_hooks|utils\.activation_hooks)\.hooks"
    r"|modelopt\.torch\.nas\.plugins\.megatron_hooks(?:\.base_hooks)?"
    r"|modelopt\.torch\.prune\.importance_hooks(?:\.base_hooks|\.expert_removal_hooks)?"
)
_MIXIN_MODULES: Final = re.compile(rf"{_PACKAGE}pruning\.(?:ffn_intermediate|kv_heads|expert_removal)_pruning_mixin")
_MODEL_MODULES: Final = re.compile(rf"{_PACKAGE}(?:anymodel\.)?models\.(\w+)\.\1_model_descriptor")
_LOADER_MODULES: Final = re.compile(rf"{_PACKAGE}(?:utils\.data|dataset)\.dataloaders")
_Known = Mapping[str, tuple[type[Any], str]]
"""`{name: (class, what the name stands for)}`."""
_NAME: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")


@dataclass(frozen=True)
class NameRegistry:
    """The names that are valid for one family.

    Attributes:
        hooks: `{name: importance hook class}`.
        mixins: `{kind: pruning mixin}`, objects or classes.
        family: the `model_type`; None when it is not known, and another family's layer descriptor is then not seen.
        source: where hooks and mixins come from; None where they were given.
    """

    hooks: Mapping[str, type[Any]] = field(default_factory=dict)
    mixins: Mapping[str, Any] = field(default_factory=dict)
    family: str | None = None
    source: Extensions | None = None

    @classmethod
    def for_family(cls, family: ModelFamily | None) -> Self:
        """Return the names of core and of one family with the installed extensions; of core alone without a family.

        Importing them imports torch.
        """
        if family is not None:
            return cls(family.importance_hooks(), family.pruning_mixins(), family.model_type, family)
        from anyblock.extensions import installed_extensions
        from anyblock.pruning.layouts import dense_mixins, sparse_mixins

        extensions = installed_extensions()
        return cls(extensions.importance_hooks(), {**dense_mixins(), **sparse_mixins()}, source=extensions)

    def hook(self, name: str) -> str:
        """Return the registered name of an importance hook.

        Raises:
            ConfigError: nothing of that name is registered.
        """
        known = {key: (found, key) for key, found in self.hooks.items()}
        return self._find(name, "importance hook", known, self._reference_hook)

    def mixin(self, name: str) -> str:
        """Return the kind of a pruning mixin.

        Raises:
            ConfigError: nothing of that name is registered.
        """
        known = {kind: (_class(mixin), kind) for kind, mixin in self.mixins.items()}
        return self._find(name, "pruning mixin", known, self._reference_mixin)

    def layer_descriptor(self, name: str) -> str:
        """Return a kind of pruning that this layer descriptor serves.

        Raises:
            ConfigError: nothing of that name is registered, or it belongs to another family.
        """
        known = {
            kind: (type(mixin.layer_descriptor), kind)
            for kind, mixin in self.mixins.items()
            if hasattr(mixin, "layer_descriptor") and not isinstance(mixin, type)
        }
        return self._find(name, "layer descriptor", known, self._reference_layer_descriptor)

    def any(self, name: str) -> str:
        """Return what `${get_object:name}` stands for: a hook's registered name, or a kind.

        Raises:
            ConfigError: nothing of that name is registered.
        """
        if is_ignored_reference(name):
            return name
        for lookup in (self.mixin, self.layer_descriptor):
            try:
                return lookup(name)
            except ConfigError:
                continue
        return self.hook(name)

    def _find(self, name: str, role: str, known: _Known, reference: Callable[[str, str], str | None]) -> str:
        if _NAME.fullmatch(name):
            for key, (cls, answer) in known.items():
                if name in (key, cls.__name__) or _is_path_of(name, cls):
                    return answer
            module, _, last = name.rpartition(".")
            found = reference(module, last)
            if found is not None:
                return found
        short = sorted({cls.__name__ for cls, _ in known.values()})
        raise ConfigError(
            f"{name!r} is no registered {role}",
            expected=", ".join(short) or "one that a plugin registers, and none does",
            hint=nearest(name.rpartition(".")[2], short)
            or "names are looked up among what core and installed plugins register; nothing is imported",
        )

    def _reference_hook(self, module: str, last: str) -> str | None:
        if last not in REFERENCE_HOOKS or (module and not _HOOK_MODULES.fullmatch(module)):
            return None
        return next((name for name in (last, *REFERENCE_HOOKS[last]) if name in self.hooks), None)

    def _reference_mixin(self, module: str, last: str) -> str | None:
        kind = REFERENCE_MIXINS.get(last)
        return kind if kind in self.mixins and (not module or _MIXIN_MODULES.fullmatch(module)) else None

    def _reference_layer_descriptor(self, module: str, last: str) -> str | None:
        within = _MODEL_MODULES.fullmatch(module)
        kind = next((kind for end, kind in REFERENCE_LAYER_DESCRIPTORS.items() if last.endswith(end)), None)
        if kind not in self.mixins or (module and within is None):
            return None
        family = REFERENCE_FAMILIES.get(within[1], within[1]) if within else None
        if family and self.family and family != self.family:
            raise ConfigError(
                f"{last} describes the layers of {family}, and the family is {self.family}",
                expected=f"the layer descriptor of {self.family}, or none: the family's own is used",
            )
        return kind


def registry_for(data: Mapping[str, Any]) -> NameRegistry:
    """Return the names that are valid for the family that a file of the guide names, or else for the model's own.

    Args:
        data: a configuration before validation.

    Raises:
        AnyBlockError: no installed adapter serves the family.
    """
    from anyblock.family import get_family

    descriptor = data.get("descriptor")
    named = REFERENCE_FAMILIES.get(str(descriptor), descriptor) if descriptor else None
    named = named or local_model_type(data.get("model"), data.get("input_hf_model_path"))
    return NameRegistry.for_family(get_family(named) if isinstance(named, str) else None)


def local_model_type(*models: Any) -> str | None:
    """Return the `model_type` of the first of these that is a local checkpoint."""
    from anyblock.checkpoint.config import read_config

    for model in models:
        if isinstance(model, str) and (Path(model) / "config.json").is_file():
            return str(read_config(Path(model)).get("model_type") or "") or None
    return None


def is_ignored_reference(name: str) -> bool:
    """Whether the reference's files refer by `name` to something that has no meaning here, such as its data loader."""
    module, _, last = name.rpartition(".")
    return last in IGNORED_REFERENCES and _LOADER_MODULES.fullmatch(module) is not None


def _class(mixin: Any) -> type[Any]:
    return mixin if isinstance(mixin, type) else type(mixin)


def _is_path_of(name: str, cls: type[Any]) -> bool:
    """Whether `name` is the class's dotted path, or that of a package above its module that offers it."""
    module, _, last = name.rpartition(".")
    return bool(module) and last == cls.__qualname__ and f"{cls.__module__}.".startswith(f"{module}.")
