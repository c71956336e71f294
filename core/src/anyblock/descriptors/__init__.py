"""Bases that implement the hooks for common layouts; a family derives from one and overrides what differs."""

from anyblock.descriptors.base import DescriptorBase
from anyblock.descriptors.dense import DenseDescriptor

__all__ = ["DenseDescriptor", "DescriptorBase"]
