"""Pruning mixins that a family's `layout_mixins` returns or derives from; needs torch, so import it inside functions."""

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
from anyblock.pruning.mamba import MambaHeadsLayerDescriptor, MambaHeadsPruningMixIn
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
    "MambaHeadsLayerDescriptor",
    "MambaHeadsPruningMixIn",
    "PruningMixIn",
    "QueryGroupsPruningMixIn",
    "RMSNormStream",
    "ResidualPruning",
    "attention_mixins",
    "dense_mixins",
    "ffn_mixins",
    "fused_sparse_mixins",
    "latent_attention_mixins",
    "mamba_mixins",
    "sparse_mixins",
]
