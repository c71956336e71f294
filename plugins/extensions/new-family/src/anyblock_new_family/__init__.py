"""AnyBlock for models that no adapter serves: tiny models of the same class show how they are built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl

if TYPE_CHECKING:
    from anyblock_new_family.introspection.descriptor import InferredDescriptor

__all__ = ["InferredFamilies"]


class InferredFamilies:
    """Infers the family of a model that no installed adapter serves."""

    @hookimpl
    def infer_family(self, model_type: str, model: str | None) -> InferredDescriptor:
        """See `FamilySpec.infer_family`."""
        from anyblock_new_family.introspection import InferredDescriptor, infer_named

        return InferredDescriptor(infer_named(model_type if model is None else model))
