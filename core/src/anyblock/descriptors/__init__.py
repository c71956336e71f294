"""Bases that answer the hooks for common layouts; a family derives from one and says what differs.

Nothing here needs torch. What does, for families that bring mixins or importance hooks of their own, is in
`anyblock.descriptors.mixins` and `anyblock.descriptors.hooks`: import those inside functions.
"""

from anyblock.descriptors.base import TINY_SIZES, DescriptorBase, LayoutDescriptor
from anyblock.descriptors.dense import DenseDescriptor
from anyblock.descriptors.fp8 import stated_dtype
from anyblock.descriptors.hybrid import HybridDescriptor
from anyblock.descriptors.layout import HalfLayout, Size
from anyblock.descriptors.sparse import SparseDescriptor

__all__ = [
    "TINY_SIZES",
    "DenseDescriptor",
    "DescriptorBase",
    "HalfLayout",
    "HybridDescriptor",
    "LayoutDescriptor",
    "Size",
    "SparseDescriptor",
    "stated_dtype",
]
