"""Finding out how a model is built by building tiny ones and running them."""

from anyblock_new_family.introspection.descriptor import InferredDescriptor, inferred_model_family
from anyblock_new_family.introspection.facts import InferredFamily, MixinCall
from anyblock_new_family.introspection.infer import infer_family, infer_from
from anyblock_new_family.introspection.named import infer_named

__all__ = [
    "InferredDescriptor",
    "InferredFamily",
    "MixinCall",
    "infer_family",
    "infer_from",
    "infer_named",
    "inferred_model_family",
]
