"""What an adapter can do, declared in five states and tested by the conformance suite."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Support(StrEnum):
    """How far a capability is supported."""

    UNKNOWN = "unknown"
    """Not stated; the suite reports what it sees."""
    UNSUPPORTED = "unsupported"
    """The architecture has no such thing (no experts in a dense model)."""
    NOT_IMPLEMENTED = "not implemented"
    """The architecture has it, the adapter does not handle it."""
    PARTIAL = "partial"
    """It works under a condition, which `Capability.note` states."""
    FULL = "full"
    """It works, and a failing check is a defect of the adapter."""


CAPABILITIES: dict[str, str] = {
    "convert": "convert a checkpoint into subblock files and read it back",
    "build": "build a heterogeneous model and run it layer by layer",
    "attention_no_op": "remove the attention half of any layer",
    "ffn_no_op": "remove the ffn half of any layer",
    "ffn_intermediate": "remove ffn channels",
    "kv_heads": "remove key-value heads while every query head stays",
    "query_groups": "remove key-value heads together with their query heads",
    "experts_removal": "remove experts",
    "expert_intermediate": "remove channels of every expert",
    "hidden_size": "remove channels of the residual stream",
    "mamba_heads": "remove heads of a Mamba mixer",
    "search": "compress under a budget from end to end",
}
"""Every capability's name, with the sentence that documents it."""


@dataclass(frozen=True)
class Capability:
    """A declared capability; `note` is required for `PARTIAL` and says under which condition or versions it holds."""

    support: Support
    note: str = ""

    def __bool__(self) -> bool:
        return self.support in (Support.PARTIAL, Support.FULL)
