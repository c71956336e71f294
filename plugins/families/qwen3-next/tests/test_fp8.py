"""Published files have experts fused, or in FP8 one by one: both are made the plain weights of every expert."""

from __future__ import annotations

from typing import Any

import torch
from anyblock import get_family

EXPERTS = "model.layers.0.mlp.experts"


def test_fused_experts_and_experts_in_fp8() -> None:
    config: Any = get_family("qwen3_5_moe_text").conformance_config()
    config.dtype = torch.bfloat16
    family = get_family("qwen3_5_moe_text")
    fused = f"{EXPERTS}.down_proj"
    assert family.dequantize([fused], config)[f"{EXPERTS}.1.down_proj.weight"] == (fused,)
    config.quantization_config = {"quant_method": "fp8", "weight_block_size": [2, 2]}
    name = f"{EXPERTS}.1.down_proj.weight"
    plan = family.dequantize([name, f"{name}_scale_inv"], config)
    assert plan == {name: (name, f"{name}_scale_inv")}
    sources = {
        name: torch.ones(3, 4).to(torch.float8_e4m3fn),
        f"{name}_scale_inv": torch.tensor([[2.0, 3.0], [5.0, 7.0]]),
    }
    found = family.dequantize_tensor(name, sources, config)
    assert found.tolist() == [[2.0, 2.0, 3.0, 3.0], [2.0, 2.0, 3.0, 3.0], [5.0, 5.0, 7.0, 7.0]]
