"""Importance hooks: forward hooks that score channels, heads and experts from activations."""

from anyblock.contract.importance_hook import ActivationStatistic, HookContext, ImportanceHook
from anyblock.importance.brain_surgeon import OptimalBrainSurgeonHook
from anyblock.importance.channels import IndependentChannelContributionHook
from anyblock.importance.expert_channels import ExpertChannelContributionHook
from anyblock.importance.expert_removal import MoERemoveExpertsHook, RemoveExpertsIndependentHook
from anyblock.importance.iterative import IterativeChannelContributionHook
from anyblock.importance.kv_heads import IndependentKvHeadContributionHook, MambaHeadContributionHook
from anyblock.importance.norms import L2NormHook, LayerNormContributionHook
from anyblock.importance.statistics import GramStatistic, LinearFitStatistic, Moments
from anyblock.importance.voting import RankedChoiceVotingHook

HOOKS: dict[str, type[ImportanceHook]] = {
    hook.__name__: hook
    for hook in (
        IterativeChannelContributionHook,
        OptimalBrainSurgeonHook,
        IndependentChannelContributionHook,
        IndependentKvHeadContributionHook,
        MambaHeadContributionHook,
        RankedChoiceVotingHook,
        MoERemoveExpertsHook,
        ExpertChannelContributionHook,
        LayerNormContributionHook,
        L2NormHook,
    )
}
"""Core's own importance hooks by class name; families and extensions add theirs through `importance_hooks`."""

__all__ = [
    "HOOKS",
    "ActivationStatistic",
    "ExpertChannelContributionHook",
    "GramStatistic",
    "HookContext",
    "ImportanceHook",
    "IndependentChannelContributionHook",
    "IndependentKvHeadContributionHook",
    "IterativeChannelContributionHook",
    "L2NormHook",
    "LayerNormContributionHook",
    "LinearFitStatistic",
    "MambaHeadContributionHook",
    "MoERemoveExpertsHook",
    "Moments",
    "OptimalBrainSurgeonHook",
    "RankedChoiceVotingHook",
    "RemoveExpertsIndependentHook",
]
