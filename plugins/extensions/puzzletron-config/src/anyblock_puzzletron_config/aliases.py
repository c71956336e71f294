"""The names by which the reference system (NVIDIA ModelOpt's Puzzletron) knows hooks, mixins, layer descriptors and families."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from anyblock.contract.config_dialect import Names, Role
from anyblock.errors import ConfigError

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


def reference_alias(role: Role, name: str, names: Names) -> str | None:
    """Return the registered name of what the reference calls `name`; None when it does not call anything so."""
    module, _, last = name.rpartition(".")
    return _LOOK_UP[role](module, last, names)


def is_ignored_reference(name: str) -> bool:
    """Whether the reference's files refer by `name` to something that has no meaning here, such as its data loader."""
    module, _, last = name.rpartition(".")
    return last in IGNORED_REFERENCES and _LOADER_MODULES.fullmatch(module) is not None


def _hook(module: str, last: str, names: Names) -> str | None:
    if last not in REFERENCE_HOOKS or (module and not _HOOK_MODULES.fullmatch(module)):
        return None
    return next((name for name in (last, *REFERENCE_HOOKS[last]) if name in names.hooks), None)


def _mixin(module: str, last: str, names: Names) -> str | None:
    kind = REFERENCE_MIXINS.get(last)
    return kind if kind in names.mixins and (not module or _MIXIN_MODULES.fullmatch(module)) else None


def _layer_descriptor(module: str, last: str, names: Names) -> str | None:
    within = _MODEL_MODULES.fullmatch(module)
    kind = next((kind for end, kind in REFERENCE_LAYER_DESCRIPTORS.items() if last.endswith(end)), None)
    if kind not in names.mixins or (module and within is None):
        return None
    family = REFERENCE_FAMILIES.get(within[1], within[1]) if within else None
    if family and names.family and family != names.family:
        raise ConfigError(
            f"{last} describes the layers of {family}, and the family is {names.family}",
            expected=f"the layer descriptor of {names.family}, or none: the family's own is used",
        )
    return kind


_LOOK_UP: Final[Mapping[Role, Callable[[str, str, Names], str | None]]] = {
    "hook": _hook,
    "mixin": _mixin,
    "layer_descriptor": _layer_descriptor,
}
