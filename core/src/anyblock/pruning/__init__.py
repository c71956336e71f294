"""Pruning mixins: they turn scores and a target `BlockConfig` into a subblock's weights."""

from anyblock.contract.pruning_mixin import PruningMixIn
from anyblock.contract.residual_pruning import ResidualPruning
from anyblock.pruning.expert_channels import ExpertIntermediateLayerDescriptor, ExpertIntermediatePruningMixIn
from anyblock.pruning.experts import ExpertRemovalLayerDescriptor, ExpertRemovalPruningMixIn
from anyblock.pruning.ffn import FFNIntermediateLayerDescriptor, FFNIntermediatePruningMixIn
from anyblock.pruning.heads import KVHeadsLayerDescriptor, KVHeadsPruningMixIn, QueryGroupsPruningMixIn
from anyblock.pruning.latent import LatentHeadsLayerDescriptor, LatentHeadsPruningMixIn
from anyblock.pruning.layouts import (
    attention_mixins,
    dense_mixins,
    ffn_mixins,
    fused_sparse_mixins,
    latent_attention_mixins,
    mamba_mixins,
    sparse_mixins,
)
from anyblock.pruning.least_squares import LinearFit, fit_linear, repair_removal
from anyblock.pruning.mamba import MambaHeadsLayerDescriptor, MambaHeadsPruningMixIn
from anyblock.pruning.ordering import best_first
from anyblock.pruning.repair_child import repair_child
from anyblock.pruning.repair_experts import repair_experts
from anyblock.pruning.residual import RMSNormStream

__all__ = [
    "ExpertIntermediateLayerDescriptor",
    "ExpertIntermediatePruningMixIn",
    "ExpertRemovalLayerDescriptor",
    "ExpertRemovalPruningMixIn",
    "FFNIntermediateLayerDescriptor",
    "FFNIntermediatePruningMixIn",
    "KVHeadsLayerDescriptor",
    "KVHeadsPruningMixIn",
    "LatentHeadsLayerDescriptor",
    "LatentHeadsPruningMixIn",
    "LinearFit",
    "MambaHeadsLayerDescriptor",
    "MambaHeadsPruningMixIn",
    "PruningMixIn",
    "QueryGroupsPruningMixIn",
    "RMSNormStream",
    "ResidualPruning",
    "attention_mixins",
    "best_first",
    "dense_mixins",
    "ffn_mixins",
    "fit_linear",
    "fused_sparse_mixins",
    "latent_attention_mixins",
    "mamba_mixins",
    "repair_child",
    "repair_experts",
    "repair_removal",
    "sparse_mixins",
]
