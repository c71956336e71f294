"""Core's counted costs."""

from __future__ import annotations

from typing import ClassVar, Final

from anyblock.contract.cost import Cost, CostedSubblock, CountedCost
from anyblock.costs.active import active_params


class Params(CountedCost):
    """Elements of all weights."""

    summary: ClassVar[str] = "Elements of all weights; tied embeddings count once."
    unit: ClassVar[str] = "parameters"

    def subblock(self, part: CostedSubblock) -> float:
        """See `CountedCost.subblock`."""
        return part.params

    def outside(self, params: int, weight_bytes: int) -> float:
        """See `CountedCost.outside`."""
        return params


class ActiveParams(Params):
    """Weights that one token uses."""

    summary: ClassVar[str] = "Weights that one token uses: of the routed experts only the share a token is sent to."

    def subblock(self, part: CostedSubblock) -> float:
        """See `CountedCost.subblock`."""
        return active_params(part.tensors, part.block_config.ffn.moe) if part.half == "ffn" else part.params


class WeightMemory(CountedCost):
    """Bytes of all weights."""

    summary: ClassVar[str] = "All weights in the dtype they are stored in, or the one asked for."
    unit: ClassVar[str] = "bytes"

    def subblock(self, part: CostedSubblock) -> float:
        """See `CountedCost.subblock`."""
        return part.weight_bytes

    def outside(self, params: int, weight_bytes: int) -> float:
        """See `CountedCost.outside`."""
        return weight_bytes


class KvMemory(CountedCost):
    """Bytes of the cache."""

    summary: ClassVar[str] = (
        "What all layers keep between decoding steps, at the scenario's batch size, length and cache dtype."
    )
    unit: ClassVar[str] = "bytes"

    def subblock(self, part: CostedSubblock) -> float:
        """See `CountedCost.subblock`."""
        return part.cache_bytes


class Memory(WeightMemory):
    """Bytes of weights and cache."""

    summary: ClassVar[str] = "weight_memory and kv_memory together."

    def subblock(self, part: CostedSubblock) -> float:
        """See `CountedCost.subblock`."""
        return part.weight_bytes + part.cache_bytes


class KvHeads(CountedCost):
    """Key-value heads."""

    summary: ClassVar[str] = "Key-value heads summed over layers."
    unit: ClassVar[str] = "heads"

    def subblock(self, part: CostedSubblock) -> float:
        """See `CountedCost.subblock`."""
        return (part.block_config.attention.num_key_value_heads or 0) if part.half == "attention" else 0


class AttentionLayers(CountedCost):
    """Layers with an attention."""

    summary: ClassVar[str] = "Layers that keep their attention, or the mixer in its place."
    unit: ClassVar[str] = "layers"

    def subblock(self, part: CostedSubblock) -> float:
        """See `CountedCost.subblock`."""
        return part.half == "attention" and not part.block_config.attention.removed


class FfnLayers(CountedCost):
    """Layers with an ffn."""

    summary: ClassVar[str] = "Layers that keep their ffn."
    unit: ClassVar[str] = "layers"

    def subblock(self, part: CostedSubblock) -> float:
        """See `CountedCost.subblock`."""
        return part.half == "ffn" and not part.block_config.ffn.removed


class Experts(CountedCost):
    """Routed experts."""

    summary: ClassVar[str] = "Routed experts summed over layers."
    unit: ClassVar[str] = "experts"

    def subblock(self, part: CostedSubblock) -> float:
        """See `CountedCost.subblock`."""
        moe = part.block_config.ffn.moe
        return moe.num_local_experts if part.half == "ffn" and moe else 0


class FileBytes(Cost):
    """Bytes of the file that the search chooses storage types for; counted only where there are such types."""

    summary: ClassVar[str] = (
        "The exported file in the storage types that are searched: its tensors exactly, the rest at most."
    )
    unit: ClassVar[str] = "bytes"


COUNTED: Final[dict[str, type[Cost]]] = {
    "params": Params,
    "active_params": ActiveParams,
    "memory": Memory,
    "weight_memory": WeightMemory,
    "kv_memory": KvMemory,
    "kv_heads": KvHeads,
    "attention_layers": AttentionLayers,
    "ffn_layers": FfnLayers,
    "experts": Experts,
    "bytes": FileBytes,
}
"""By name, in the order in which tables show them."""
