"""The descriptor of an `InferredFamily`, made at run time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import LayoutDescriptor
from anyblock.descriptors.base import import_dotted
from anyblock.family import ModelFamily

from anyblock_new_family.introspection.facts import InferredFamily, MixinCall

if TYPE_CHECKING:
    from anyblock.contract.pruning_mixin import PruningMixIn


class InferredDescriptor(LayoutDescriptor):
    """Answers every hook from an `InferredFamily`.

    Args:
        inferred: what is known.
    """

    def __init__(self, inferred: InferredFamily) -> None:
        self.inferred = inferred
        self.model_type = inferred.model_type
        self.__dict__.update(inferred.attributes)

    def layout_mixins(self) -> dict[str, PruningMixIn]:
        """See `DescriptorBase.layout_mixins`."""
        return {
            kind: mixin
            for call in self.inferred.mixins
            for kind, mixin in mixins_of(call, self.checkpoint_layer).items()
        }

    @hookimpl
    def conformance_config(self) -> Any:
        """See `FamilySpec.conformance_config`."""
        return self.inferred.tiny.make()


def mixins_of(call: MixinCall, layer: str) -> dict[str, PruningMixIn]:
    """Return what a call gives for layers with this prefix in a checkpoint, such as `model.layers.{layer_idx}`."""
    from anyblock.pruning import layouts

    found: dict[str, PruningMixIn] = getattr(layouts, call.function)(layer, **call.arguments)
    return {kind: mixin for kind, mixin in found.items() if kind in call.kinds}


def inferred_model_family(inferred: InferredFamily) -> ModelFamily:
    """Return the handle on an inferred family."""
    import_dotted(inferred.tiny.config_class)
    return ModelFamily.from_descriptor(InferredDescriptor(inferred), model_type=inferred.model_type)
