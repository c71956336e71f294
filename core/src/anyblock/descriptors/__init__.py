"""Bases that implement the hooks for common layouts; a family derives from one and overrides what differs."""

from anyblock.descriptors.base import TINY_SIZES, DescriptorBase
from anyblock.descriptors.dense import DenseDescriptor
from anyblock.descriptors.fp8 import BlockScaledStorage
from anyblock.descriptors.hybrid import HybridDescriptor
from anyblock.descriptors.layout import HalfLayout, LayoutDescriptor
from anyblock.descriptors.sparse import SparseDescriptor

__all__ = [
    "TINY_SIZES",
    "BlockScaledStorage",
    "DenseDescriptor",
    "DescriptorBase",
    "HalfLayout",
    "HybridDescriptor",
    "LayoutDescriptor",
    "SparseDescriptor",
]
