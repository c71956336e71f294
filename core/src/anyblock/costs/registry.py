"""The names by which budgets speak of costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CandidateCosts = dict[str, float]
"""What one candidate, or a whole model, uses: values by the names of `cost_names`. Costs of subblocks add up."""

LATENCY: Final = "latency"


@dataclass(frozen=True)
class CostName:
    """A cost that a budget can bound.

    Attributes:
        unit: `parameters`, `bytes`, `heads`, `layers`, `experts` or `ms`.
        doc: one sentence.
        measured: it is there only after a measurement on a device.
    """

    unit: str
    doc: str
    measured: bool = False


_NAMES = {
    "params": CostName("parameters", "Elements of all weights; tied embeddings count once."),
    "active_params": CostName(
        "parameters", "Weights that one token uses: of the routed experts only the share a token is sent to."
    ),
    "memory": CostName("bytes", "weight_memory and kv_memory together."),
    "weight_memory": CostName("bytes", "All weights in the dtype they are stored in, or the one asked for."),
    "kv_memory": CostName(
        "bytes", "What all layers keep between decoding steps, at the scenario's batch size, length and cache dtype."
    ),
    "kv_heads": CostName("heads", "Key-value heads summed over layers."),
    "attention_layers": CostName("layers", "Layers that keep their attention, or the mixer in its place."),
    "ffn_layers": CostName("layers", "Layers that keep their ffn."),
    "experts": CostName("experts", "Routed experts summed over layers."),
    LATENCY: CostName(
        "ms", "Time of the scenario's prefill and decoding steps, measured on this device.", measured=True
    ),
}


def cost_names() -> dict[str, CostName]:
    """Return every cost by name, with its unit and a sentence about it."""
    return dict(_NAMES)
