"""`InferredFamily`: what introspection found out about an architecture, as plain data with the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from anyblock.descriptors import HalfLayout

from anyblock_new_family.introspection.tiny import TinyConfig


@dataclass(frozen=True)
class MixinCall:
    """A function of `anyblock.pruning.layouts` with its arguments after the layer's prefix, and the kinds it gives."""

    function: str
    arguments: Mapping[str, Any]
    kinds: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class InferredFamily:
    """An architecture as it was seen to run.

    Attributes:
        model_type: the Hugging Face `model_type`.
        attributes: the class attributes of a `LayoutDescriptor` that describe it.
        mixins: how it can be made smaller; every one was tried.
        tiny: the configuration that everything was found out on.
        evidence: `{fact: what was seen}`.
        unknown: what could not be found out, in sentences.
        levels: `{level of the conformance suite: whether it is passed}`; None where the suite has not been run on it.
    """

    model_type: str
    attributes: Mapping[str, Any]
    mixins: tuple[MixinCall, ...]
    tiny: TinyConfig
    evidence: Mapping[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    levels: Mapping[str, bool] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    def without(self, reasons: Mapping[str, str]) -> InferredFamily:
        """Return the family with some capabilities declared as not implemented, with their reasons."""
        not_implemented = dict(sorted({**self.attributes["not_implemented"], **reasons}.items()))
        unknown = tuple(f"{name}: {text}" for name, text in not_implemented.items())
        return replace(self, attributes={**self.attributes, "not_implemented": not_implemented}, unknown=unknown)

    def kinds(self, half: str) -> Mapping[str, HalfLayout]:
        """Return the layouts of one half by the name of their kind."""
        found: Mapping[str, HalfLayout] = self.attributes[f"{half}_kinds"]
        return found
