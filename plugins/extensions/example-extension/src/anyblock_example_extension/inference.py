"""The inference of a family: a model type that is known to be laid out as Llama is needs no adapter."""

from __future__ import annotations

from typing import Any, Final

from anyblock.descriptors import DenseDescriptor

SAME_LAYOUT: Final = {"helium": "HeliumDecoderLayer"}
"""`{model type: its layer class in transformers}`."""


def inferred(model_type: str) -> type[Any] | None:
    """Return a descriptor for a model of the common layout; None for any other model type."""
    if model_type not in SAME_LAYOUT:
        return None
    layer = f"transformers.models.{model_type}.modeling_{model_type}.{SAME_LAYOUT[model_type]}"
    return type("Inferred", (DenseDescriptor,), {"decoder_layer": layer})
