"""Which children are Llamas in all but the sizes of their layers, for formats that know nothing else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from anyblock.checkpoint.config_view import config_view
from anyblock.export.uniform import linear_obstacles

if TYPE_CHECKING:
    from anyblock.checkpoint.subblocks import SubblockCheckpoint

_TENSORS: Final = re.compile(
    r"(?:model\.layers\.\d+\.)?(?:model\.(?:embed_tokens|norm)|lm_head|input_layernorm|post_attention_layernorm"
    r"|self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj)\.(?:weight|bias)"
)


def llama_obstacles(child: SubblockCheckpoint) -> list[str]:
    """Return why a child is no Llama whose layers merely differ in size; empty when it is one."""
    if linear := linear_obstacles(child):
        return linear
    model_type = child.config["model_type"]
    if model_type not in ("llama", "mistral"):
        return [f"its model_type is {model_type}; only models that compute what Llama computes can be expressed"]
    config: Any = config_view(child.config)
    found = [
        f"it has the tensor {name}, which a Llama has not"
        for group in child.model_groups
        for name in child.groups[group]
        if not _TENSORS.fullmatch(name)
    ]
    if model_type == "mistral" and getattr(config, "sliding_window", None):
        found.append(f"its attention has a sliding window of {config.sliding_window} tokens")
    if config.hidden_act != "silu":
        found.append(f"its activation is {config.hidden_act}, not silu")
    if not any(not block.attention.removed for block in child.block_configs):
        found.append("no layer has an attention")
    return found
