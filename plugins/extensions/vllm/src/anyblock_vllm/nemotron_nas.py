"""`nemotron-nas`: the form of NVIDIA's Nemotron-NAS models, which vLLM, TensorRT-LLM and llama.cpp read as they are."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from anyblock.contract.export_format import Child, ExportFormat, linear_obstacles

from anyblock_vllm.widths import MARLIN

if TYPE_CHECKING:
    from anyblock.contract.blocks import BlockConfig

_STEP: Final = 256
"""Readers make a width of `ffn_mult` a multiple of this."""
_LLAMA: Final = re.compile(
    r"(?:model\.layers\.\d+\.)?(?:model\.(?:embed_tokens|norm)|lm_head|input_layernorm|post_attention_layernorm"
    r"|self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj)\.(?:weight|bias)"
)


class NemotronNasFormat(ExportFormat):
    """A `DeciLMForCausalLM` checkpoint: a Llama with `block_configs` in the terms of Nemotron-NAS.

    Attentions are `n_heads_in_group`, ffns `ffn_mult` where every width can be said so, which is the only form that
    llama.cpp's converter reads, and `intermediate_size` otherwise, which vLLM reads as long as there is no `ffn_mult`.
    """

    summary: ClassVar[str] = "DeciLMForCausalLM, for vLLM and TensorRT-LLM"
    aliases: ClassVar[tuple[str, ...]] = ("vllm",)
    width_multiples: ClassVar[tuple[int, ...]] = MARLIN

    def obstacles(self, child: Child) -> list[str]:
        """See `ExportFormat.obstacles`: a Llama with one number of query heads, which begins with an attention."""
        found = _llama_obstacles(child)
        if found:
            return found
        heads = child.view.num_attention_heads
        for index, block in enumerate(child.block_configs):
            own = block.attention.num_attention_heads or heads
            if not block.attention.no_op and own != heads:
                found.append(f"layer {index} has {own} query heads and the model {heads}; the form has one number")
        first = next((block for block in child.block_configs if not (block.attention.no_op and block.ffn.no_op)), None)
        if first is not None and first.attention.no_op:
            found.append("an ffn comes before the first attention, which vLLM's loader of this form cannot run")
        return found

    def write(self, child: Child, directory: Path) -> None:
        """See `ExportFormat.write`."""
        child.write_directory(directory, config=_config(child))
        source = Path(__file__).with_name("deci_config.py")
        (directory / "configuration_decilm.py").write_bytes(source.read_bytes())


def _llama_obstacles(child: Child) -> list[str]:
    """Return why a child is not a Llama whose layers merely differ in size; empty when it is one."""
    if linear := linear_obstacles(child):
        return linear
    model_type = child.config["model_type"]
    if model_type not in ("llama", "mistral"):
        return [f"its model_type is {model_type}; only models that compute what Llama computes can be expressed"]
    config = child.view
    found = [
        f"it has the tensor {name}, which a Llama does not have"
        for group in child.model_groups
        for name in child.groups[group]
        if not _LLAMA.fullmatch(name)
    ]
    if model_type == "mistral" and getattr(config, "sliding_window", None):
        found.append(f"its attention has a sliding window of {config.sliding_window} tokens")
    if config.hidden_act != "silu":
        found.append(f"its activation is {config.hidden_act}, not silu")
    if not any(not block.attention.removed for block in child.block_configs):
        found.append("no layer has an attention")
    return found


def _config(child: Child) -> dict[str, Any]:
    view = child.view
    multiplied = [
        None if block.ffn.intermediate_size is None else ffn_mult(block.ffn.intermediate_size, view.hidden_size)
        for block in child.block_configs
    ]
    said = all(mult is not None or block.ffn.no_op for mult, block in zip(multiplied, child.block_configs, strict=True))
    return copy.deepcopy(dict(child.config)) | {
        "architectures": ["DeciLMForCausalLM"],
        "model_type": "nemotron-nas",
        "auto_map": {"AutoConfig": "configuration_decilm.DeciLMConfig"},
        "block_configs": [
            _block(block, view.num_attention_heads, {"ffn_mult": mult} if said else None)
            for block, mult in zip(child.block_configs, multiplied, strict=True)
        ],
    }


def _block(block: BlockConfig, heads: int, ffn: dict[str, Any] | None) -> dict[str, Any]:
    kv_heads = block.attention.num_key_value_heads
    return {
        "attention": {
            "n_heads_in_group": heads // kv_heads if kv_heads else None,
            "no_op": block.attention.no_op,
            "replace_with_linear": False,
        },
        "ffn": {
            **({"intermediate_size": block.ffn.intermediate_size} if ffn is None else ffn),
            "no_op": block.ffn.no_op,
            "replace_with_linear": False,
        },
    }


def ffn_mult(width: int, hidden_size: int) -> float | None:
    """Return the multiplier of which readers make this width, or None where there is none.

    They take `int(2 * ffn_mult * hidden_size / 3)` and round it up to a multiple of 256.
    """
    mult = (width - _STEP / 2) * 3 / (2 * hidden_size)
    read = int(2 * mult * hidden_size / 3)
    return mult if read + -read % _STEP == width else None
