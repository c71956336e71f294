"""Core's counted costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from anyblock.contract.cost import Cost, CostedSubblock, CountedCost
from anyblock.costs.active import active_params


def _counted(
    summary: str,
    unit: str,
    subblock: Callable[[CostedSubblock], float],
    outside: Callable[[int, int], float] = lambda params, weight_bytes: 0.0,
) -> type[CountedCost]:
    """Return a cost; see `CountedCost` for what the two functions are given."""
    methods = {"subblock": lambda _, part: subblock(part), "outside": lambda _, *weights: outside(*weights)}
    return type("Counted", (CountedCost,), {"__module__": __name__, "summary": summary, "unit": unit, **methods})


def _active(part: CostedSubblock) -> float:
    return active_params(part.tensors, part.block_config.ffn.moe) if part.half == "ffn" else part.params


class FileBytes(Cost):
    """Bytes of the exported file; they are counted where storage types are searched, see `Storage`."""

    unit = "bytes"
    summary = "The exported file in the storage types that are searched: its tensors exactly, the rest at most."


COUNTED: Final[dict[str, type[Cost]]] = {
    "params": _counted(
        "Elements of all weights; tied embeddings count once.",
        "parameters",
        lambda part: part.params,
        lambda params, _: params,
    ),
    "active_params": _counted(
        "Weights that one token uses: of the routed experts only the share a token is sent to.",
        "parameters",
        _active,
        lambda params, _: params,
    ),
    "memory": _counted(
        "weight_memory and kv_memory together.",
        "bytes",
        lambda part: part.weight_bytes + part.cache_bytes,
        lambda _, weight_bytes: weight_bytes,
    ),
    "weight_memory": _counted(
        "All weights in the dtype they are stored in, or the one asked for.",
        "bytes",
        lambda part: part.weight_bytes,
        lambda _, weight_bytes: weight_bytes,
    ),
    "kv_memory": _counted(
        "What all layers keep between decoding steps, at the scenario's batch size, length and cache dtype.",
        "bytes",
        lambda part: part.cache_bytes,
    ),
    "kv_heads": _counted(
        "Key-value heads summed over layers.",
        "heads",
        lambda part: (part.block_config.attention.num_key_value_heads or 0) if part.half == "attention" else 0,
    ),
    "attention_layers": _counted(
        "Layers that keep their attention, or the mixer in its place.",
        "layers",
        lambda part: part.half == "attention" and not part.block_config.attention.removed,
    ),
    "ffn_layers": _counted(
        "Layers that keep their ffn.",
        "layers",
        lambda part: part.half == "ffn" and not part.block_config.ffn.removed,
    ),
    "experts": _counted(
        "Routed experts summed over layers.",
        "experts",
        lambda part: moe.num_local_experts if part.half == "ffn" and (moe := part.block_config.ffn.moe) else 0,
    ),
    "bytes": FileBytes,
}
"""By name, in the order in which tables show them."""
