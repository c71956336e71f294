"""Children of a small Nemotron-H whose layers differ, for tests of its form in vLLM's terms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anyblock import convert_model, get_family
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig
from anyblock.modeling.skeleton import build_skeleton
from anyblock_conformance.tiny import randomise

GONE = BlockConfig(attention=AttentionConfig(no_op=True), ffn=FFNConfig(no_op=True))
SIZES: dict[str, Any] = {
    "hybrid_override_pattern": "ME*-EM*E",
    "mlp_bias": False,
    "n_group": 1,
    "use_bias": False,
    "layer_norm_epsilon": 1e-5,
    "vocab_size": 512,
    "max_position_embeddings": 256,
}


def nemotron_child(folder: Path, changes: dict[int, Any], **config: Any) -> Path:
    """Write a child with random weights below `folder`; returns its path.

    Args:
        folder: where it goes.
        changes: `{layer: function from its block config to the child's}`.
        config: what differs from `SIZES` in the configuration.
    """
    family = get_family("nemotron_h")
    stated = family.conformance_config().to_dict()
    for name in ("layers_block_type", "layer_types", "num_hidden_layers"):
        stated.pop(name, None)
    whole = type(family.conformance_config()).from_dict(stated | SIZES | config)
    blocks = family.create_block_configs(whole)
    blocks = [changes.get(index, lambda block: block)(block) for index, block in enumerate(blocks)]
    model = build_skeleton(family, whole, blocks).to_empty(device="cpu").float().eval()
    for tensor in model.state_dict().values():
        tensor.fill_(0.5)
    randomise(model)
    model.config.block_configs = [block.to_dict() for block in blocks]
    model.save_pretrained(folder / "saved")
    return convert_model(folder / "saved", folder / "child")


def different(experts: int = 4, top_k: int = 2, width: int = 16, shared: int = 24) -> Any:
    """Return what gives a layer of experts these sizes."""
    sizes = {"num_local_experts": experts, "num_experts_per_tok": top_k, "expert_intermediate_dim": width}
    return lambda block: block.with_moe(**sizes, shared_expert_intermediate_dim=shared)


CHILDREN: dict[str, dict[int, Any]] = {
    "unpruned": {},
    "experts": {1: different(4, 3, 12), 4: different(6, 1, 16), 7: different(2, 2, 4, shared=8)},
    "halves": {0: lambda _: GONE, 2: lambda _: GONE, 3: lambda b: b.with_ffn(intermediate_size=20), 7: lambda _: GONE},
    "all": {1: different(3, 2, 8), 2: lambda _: GONE, 3: lambda _: GONE, 4: different(4, 1, 8), 5: lambda _: GONE},
    "no experts": {index: lambda _: GONE for index in (1, 4, 7)},
    "heads": {
        0: lambda b: b.with_attention(
            mamba=b.attention.mamba.__class__(state_dim=8, num_heads=2, head_dim=8, num_groups=2)
        ),
        5: lambda _: GONE,
        2: lambda b: b.with_attention(num_key_value_heads=1),
        6: lambda _: GONE,
    },
}
