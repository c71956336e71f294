"""Finding out how a model is built by building tiny ones and running them."""

from anyblock.introspection.descriptor import InferredDescriptor, inferred_model_family
from anyblock.introspection.facts import InferredFamily, MixinCall
from anyblock.introspection.infer import infer_family, infer_from
from anyblock.introspection.named import infer_named, model_type_of

__all__ = [
    "InferredDescriptor",
    "InferredFamily",
    "MixinCall",
    "infer_family",
    "infer_from",
    "infer_named",
    "inferred_model_family",
    "model_type_of",
]
