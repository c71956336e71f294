"""Run exports through vLLM's own loaders; needs nothing but vLLM, and is not imported by any test.

    python run_vllm.py REQUEST.json ANSWER.npz

The request: `{"exports": {name: [directory, model_impl]}, "prompt": ids}`. The answer: for every name its logits
[prompt, vocabulary], or its error as a text.

vLLM's wheel on PyPI has its kernels compiled for CUDA alone. What is vLLM's here is what an export must fit: its reading of the
configuration, its classes of models and layers, and its loaders of weights. Its kernels are replaced where it offers plain
PyTorch (`custom_ops=none`), and attention, Mamba's scan and the product of experts, for which it does not, by plain PyTorch
over the one sequence.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

os.environ |= {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}


def attention(
    self: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
) -> torch.Tensor:
    def heads(states: torch.Tensor, count: int) -> torch.Tensor:
        return states.view(len(query), count, self.head_size).transpose(0, 1)[None]

    found = torch.nn.functional.scaled_dot_product_attention(
        heads(query, self.num_heads),
        heads(key, self.num_kv_heads),
        heads(value, self.num_kv_heads),
        is_causal=True,
        enable_gqa=True,
        scale=self.impl.scale,
    )
    return found[0].transpose(0, 1).reshape(len(query), -1)


def mamba(self: Any, hidden_states: torch.Tensor, mup_vector: torch.Tensor | None = None) -> torch.Tensor:
    projected, _ = self.in_proj(hidden_states)
    gate, mixed, steps = projected.split([self.intermediate_size, self.conv_dim, self.num_heads], dim=-1)
    weight = self.conv1d.weight
    padded = torch.nn.functional.pad(mixed.T[None], (weight.shape[-1] - 1, 0))
    mixed = torch.nn.functional.conv1d(padded, weight, self.conv1d.bias, groups=self.conv_dim)[0].T
    inputs, into, out_of = self.split_hidden_states_B_C_fn(torch.nn.functional.silu(mixed))
    inputs = inputs.unflatten(-1, (self.num_heads, self.head_dim))
    each = self.num_heads // self.n_groups
    into, out_of = (
        part.unflatten(-1, (self.n_groups, -1)).repeat_interleave(each, dim=1)[:, :, None] for part in (into, out_of)
    )
    steps = torch.nn.functional.softplus(steps + self.dt_bias)[..., None, None]
    state = torch.zeros(self.num_heads, self.head_dim, self.ssm_state_size)
    outputs = []
    for token, step in enumerate(steps):
        state = state * (step * self.A[:, None, None]).exp() + step * inputs[token][..., None] * into[token]
        outputs.append((state * out_of[token]).sum(-1) + self.D[:, None] * inputs[token])
    output, _ = self.out_proj(self.norm.forward_native(torch.stack(outputs).flatten(1), gate))
    return output


def experts(
    self: Any, hidden_states: torch.Tensor, router_logits: torch.Tensor, shared_experts_input: torch.Tensor, **_: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    weights, chosen = self.router.select_experts(hidden_states, router_logits)
    up, down = self.routed_experts.w13_weight, self.routed_experts.w2_weight
    every = torch.einsum("td,eid->tei", hidden_states, up).relu().square()
    every = torch.einsum("tei,edi->ted", every, down)
    taken = every.gather(1, chosen.long()[..., None].expand(-1, -1, every.shape[-1]))
    return self._shared_experts._layer(shared_experts_input), (weights[..., None] * taken).sum(1)


def prepare() -> None:
    import vllm.platforms
    from vllm.platforms.cpu import CpuPlatform

    vllm.platforms._current_platform = CpuPlatform()  # the wheel's name says CUDA; before anything else is imported
    from vllm.model_executor.layers.attention.attention import Attention
    from vllm.model_executor.layers.fused_moe import config as moe_config
    from vllm.model_executor.layers.fused_moe import unquantized_fused_moe_method as moe_method
    from vllm.model_executor.layers.fused_moe.oracle.unquantized import UnquantizedMoeBackend
    from vllm.model_executor.layers.fused_moe.runner.moe_runner import MoERunner
    from vllm.model_executor.layers.mamba.mamba_mixer2 import MambaMixer2

    class Ungated(CpuPlatform):
        def is_xpu(self) -> bool:
            return True  # no kernel for the CPU has experts without a gate, and the configuration refuses them there

    moe_config.current_platform = Ungated()
    no_kernel = UnquantizedMoeBackend.CPU, SimpleNamespace(is_monolithic=lambda: False)
    moe_method.select_unquantized_moe_backend = lambda **_: no_kernel
    moe_method.UnquantizedFusedMoEMethod._setup_kernel = lambda *_, **__: None  # which packs weights for the kernels
    MoERunner._apply_quant_method = experts
    MambaMixer2.forward = mamba
    Attention.forward = attention
    torch.accelerator.empty_cache = lambda: None  # raises without an accelerator in older versions of torch


def logits_of(directory: str, model_impl: str, prompt: list[int]) -> np.ndarray:
    from vllm.config import set_current_vllm_config
    from vllm.distributed import init_distributed_environment, initialize_model_parallel
    from vllm.engine.arg_utils import EngineArgs
    from vllm.forward_context import set_forward_context
    from vllm.model_executor.model_loader import get_model

    arguments = EngineArgs(
        model=directory,
        model_impl=model_impl,
        trust_remote_code=True,
        dtype="float32",
        enforce_eager=True,
        max_model_len=128,
        skip_tokenizer_init=True,
        compilation_config={"custom_ops": ["none"]},
    )
    config = arguments.create_engine_config()
    with set_current_vllm_config(config), torch.no_grad():
        if not torch.distributed.is_initialized():
            init_distributed_environment(1, 0, f"file://{sys.argv[2]}.rendezvous", 0, "gloo")
            initialize_model_parallel()
        model = get_model(vllm_config=config)
        with set_forward_context(None, config):
            hidden = model(torch.tensor(prompt), torch.arange(len(prompt)))
            found: np.ndarray = model.compute_logits(hidden).numpy()
            return found


prepare()
request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
answer = {}
for name, (directory, model_impl) in request["exports"].items():
    try:
        answer[name] = logits_of(directory, model_impl, request["prompt"])
    except (ValueError, RuntimeError) as error:  # what vLLM refuses or cannot run; the caller expects some
        answer[name] = np.array(f"{type(error).__name__}: {error}")
np.savez(sys.argv[2], **answer)
