"""Numbers and shapes as people read them."""

from __future__ import annotations

import math
from typing import Final

from anyblock.contract.blocks import AttentionConfig, FFNConfig

COSTS: Final = {
    "params": ("parameters", "count"),
    "active_params": ("parameters that one token uses", "count"),
    "memory": ("weights and key-value cache", "bytes"),
    "weight_memory": ("weights", "bytes"),
    "kv_memory": ("key-value cache", "bytes"),
    "bytes": ("exported file", "bytes"),
    "kv_heads": ("key-value heads", "count"),
    "attention_layers": ("layers with attention", "count"),
    "ffn_layers": ("layers with an FFN", "count"),
    "experts": ("experts", "count"),
    "latency": ("latency", "ms"),
    "processor_time": ("processor time", "ms"),
    "matrices": ("weight matrices", "count"),
}
"""`{cost: (what it is, its unit)}`; a cost of an extension is shown by its name, as a count."""
_DECIMAL: Final = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_BINARY: Final = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def cost_name(cost: str) -> str:
    """Return what a cost is, in words."""
    return COSTS.get(cost, (cost.replace("_", " "), ""))[0]


def cost_unit(cost: str) -> str:
    """Return `bytes`, `ms` or `count`."""
    return COSTS.get(cost, ("", "count"))[1]


def quantity(value: float, unit: str = "count") -> str:
    """Return a value with three significant digits and its unit: `8.03 B`, `15.0 GiB`, `12.5 ms`."""
    if unit == "ms":
        return f"{value:.4g} ms"
    for size, suffix in _BINARY if unit == "bytes" else _DECIMAL:
        if abs(value) >= size:
            digits = max(0, 2 - math.floor(math.log10(abs(value) / size)))
            return f"{value / size:.{digits}f} {suffix}"
    return f"{value:,.4g}" + (" B" if unit == "bytes" else "")


def duration(seconds: float) -> str:
    """Return `35 ms`, `4.2 s`, `2 min 03 s` or `1 h 05 min`."""
    if seconds < 59.95:
        return f"{seconds * 1000:.0f} ms" if seconds < 1.0 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def number(value: float | None) -> str:
    """Return a measured value with four significant digits; a dash for None and what is not finite."""
    return "–" if value is None or not math.isfinite(value) else f"{value:#,.4g}".rstrip(".")


def attention_units(attention: AttentionConfig) -> tuple[str, int, str]:
    """Return a mixer's kind, how many units it has, and what these are; no units where nothing is left of it."""
    if attention.removed:
        return ("removed" if attention.no_op else "linear"), 0, ""
    if attention.mamba is not None:
        return "mamba", attention.mamba.num_heads, "Mamba heads"
    if attention.num_key_value_heads is not None:
        return "attention", attention.num_key_value_heads, "key-value heads"
    return "attention", attention.num_attention_heads or 1, "heads" if attention.num_attention_heads else "mixer"


def ffn_units(ffn: FFNConfig) -> tuple[str, int, str]:
    """Return an FFN's kind, how many units it has, and what these are; no units where nothing is left of it."""
    if ffn.removed:
        return ("removed" if ffn.no_op else "linear"), 0, ""
    if ffn.moe is not None:
        return "experts", ffn.moe.num_local_experts, "experts"
    return "ffn", ffn.intermediate_size or 0, "channels"


def kept_share(half: AttentionConfig | FFNConfig, teacher: AttentionConfig | FFNConfig) -> float:
    """Return which share of the teacher's units is left, 0 to 1; of experts, of the channels in all of them."""
    if isinstance(half, FFNConfig) and isinstance(teacher, FFNConfig):
        if half.moe is not None and teacher.moe is not None:
            mine, own = (m.num_local_experts * m.expert_intermediate_dim for m in (half.moe, teacher.moe))
            return mine / own
        mine, own = ffn_units(half)[1], ffn_units(teacher)[1]
    else:
        assert isinstance(half, AttentionConfig)
        assert isinstance(teacher, AttentionConfig)
        queries, before = half.num_attention_heads, teacher.num_attention_heads
        if queries and before and not half.mamba and half.num_key_value_heads == teacher.num_key_value_heads:
            return queries / before
        mine, own = attention_units(half)[1], attention_units(teacher)[1]
    return min(1.0, mine / own) if own else 0.0


def half_text(half: AttentionConfig | FFNConfig) -> str:
    """Say what a half is: `4 key-value heads`, `8 experts of 192 channels`, `removed`, `a linear map`."""
    kind, units, unit = ffn_units(half) if isinstance(half, FFNConfig) else attention_units(half)
    if kind in ("removed", "linear"):
        return "removed" if kind == "removed" else "a linear map"
    text = f"{units} {unit if units != 1 else unit.removesuffix('s')}"
    if isinstance(half, FFNConfig):
        return text + (f" of {half.moe.expert_intermediate_dim} channels" if half.moe else "")
    if half.num_key_value_heads and half.num_attention_heads:
        text += f" for {half.num_attention_heads} query heads"
    return text
