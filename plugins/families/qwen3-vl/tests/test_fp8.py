"""Published files in FP8 hold experts one by one."""

from __future__ import annotations

from typing import Any

import torch
from anyblock import get_family


def test_experts_in_fp8() -> None:
    family = get_family("qwen3_vl_moe")
    config: Any = family.conformance_config()
    config.dtype, config.quantization_config = torch.bfloat16, {"quant_method": "fp8", "weight_block_size": [2, 2]}
    name = "model.language_model.layers.0.mlp.experts.1.down_proj.weight"
    plan = family.dequantize([name, f"{name}_scale_inv"], config)
    assert plan == {name: (name, f"{name}_scale_inv")}
    sources = {name: torch.ones(2, 4).to(torch.float8_e4m3fn), f"{name}_scale_inv": torch.tensor([[2.0, 3.0]])}
    assert family.dequantize_tensor(name, sources, config).tolist() == [[2.0, 2.0, 3.0, 3.0]] * 2
