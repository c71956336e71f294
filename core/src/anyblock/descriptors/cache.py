"""The caches of the usual token mixers, as transformers keeps them."""

from __future__ import annotations

from typing import Any

from anyblock.checkpoint.config_view import layer_view
from anyblock.contract.blocks import BlockConfig, MambaConfig
from anyblock.contract.cache_spec import CacheSpec, head_width


def mamba_cache(mamba: MambaConfig, kernel: int) -> CacheSpec:
    """Return the cache of a Mamba-2 layer, as transformers keeps it.

    The convolution keeps its last `kernel` inputs, for every channel and for B and C of every group; the state is
    `[heads, head_dim, state_dim]` in float32.
    """
    channels = mamba.num_heads * mamba.head_dim
    inputs = channels + 2 * mamba.num_groups * mamba.state_dim
    return CacheSpec(fixed=inputs * kernel, float32=channels * mamba.state_dim)


def attention_cache(config: Any, block_config: BlockConfig, layer_index: int) -> CacheSpec:
    """Return the cache of a softmax-attention layer with grouped keys and values, as transformers keeps it.

    `layer_types` says which layers are windowed or chunked. Without it every layer is windowed when the config has a
    `sliding_window` in use, and chunked when it has an `attention_chunk_size`. A windowed layer keeps `window - 1` past
    tokens; a layer that reuses another one's keys and values (`kv_sharing_modes`) keeps none.

    A removed attention, or one that is a linear map, counts as nothing, although a child run by transformers keeps two
    numbers a token in its place.
    """
    heads, config = block_config.attention.num_key_value_heads, layer_view(config, layer_index)
    sharing = getattr(config, "kv_sharing_modes", None)
    if block_config.attention.removed or heads is None or (sharing and sharing[layer_index] == "reuse"):
        return CacheSpec()
    window = _window(config, layer_index)
    # A window of one token would keep none, but transformers slices with -0 then and keeps all.
    return CacheSpec(per_token=2 * heads * head_width(config), window=window - 1 if window and window > 1 else None)


def _window(config: Any, layer_index: int) -> int | None:
    sliding = getattr(config, "sliding_window", None)
    chunk = getattr(config, "attention_chunk_size", None)
    types = getattr(config, "layer_types", None)
    if types:
        return {"sliding_attention": sliding, "chunked_attention": chunk}.get(types[layer_index])
    # Qwen's files carry a window that is switched off; transformers drops it on reading, a view of the file does not.
    in_use = sliding is not None and getattr(config, "use_sliding_window", True) is not False
    return sliding if in_use else chunk
