"""Importance hooks: forward hooks that score channels, heads and experts from activations."""

from anyblock.importance.channels import IndependentChannelContributionHook
from anyblock.importance.hook import ActivationStatistic, HookContext, ImportanceHook
from anyblock.importance.iterative import IterativeChannelContributionHook
from anyblock.importance.kv_heads import IndependentKvHeadContributionHook

HOOKS: dict[str, type[ImportanceHook]] = {
    hook.__name__: hook
    for hook in (
        IterativeChannelContributionHook,
        IndependentChannelContributionHook,
        IndependentKvHeadContributionHook,
    )
}
"""Core's own importance hooks by class name; families and extensions add theirs through `importance_hooks`."""

__all__ = [
    "HOOKS",
    "ActivationStatistic",
    "HookContext",
    "ImportanceHook",
    "IndependentChannelContributionHook",
    "IndependentKvHeadContributionHook",
    "IterativeChannelContributionHook",
]
