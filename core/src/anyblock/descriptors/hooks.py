"""Importance hooks that a family's own derive from; needs torch, so import it inside functions."""

from anyblock.contract.importance_hook import HookContext, ImportanceHook
from anyblock.importance.brain_surgeon import OptimalBrainSurgeonHook
from anyblock.importance.channels import IndependentChannelContributionHook
from anyblock.importance.expert_channels import ExpertChannelContributionHook
from anyblock.importance.expert_removal import MoERemoveExpertsHook, RemoveExpertsIndependentHook
from anyblock.importance.iterative import IterativeChannelContributionHook
from anyblock.importance.kv_heads import IndependentKvHeadContributionHook, MambaHeadContributionHook
from anyblock.importance.voting import RankedChoiceVotingHook

__all__ = [
    "ExpertChannelContributionHook",
    "HookContext",
    "ImportanceHook",
    "IndependentChannelContributionHook",
    "IndependentKvHeadContributionHook",
    "IterativeChannelContributionHook",
    "MambaHeadContributionHook",
    "MoERemoveExpertsHook",
    "OptimalBrainSurgeonHook",
    "RankedChoiceVotingHook",
    "RemoveExpertsIndependentHook",
]
