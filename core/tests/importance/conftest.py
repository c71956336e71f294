"""Hooks on real modules, and their contexts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig, MambaConfig, MoEConfig
from anyblock.importance import ActivationStatistic, HookContext
from torch import nn


def context(
    batches: int = 4,
    *,
    heads: int = 4,
    experts: int | None = None,
    mamba: int | None = None,
    top_k: int = 2,
    width: int = 12,
    hidden: int = 24,
) -> HookContext:
    """Return a context for layer 3; with `experts` its ffn is sparse, with `mamba` its mixer is a Mamba of so many heads."""
    moe = None
    if experts is not None:
        moe = MoEConfig(num_local_experts=experts, num_experts_per_tok=top_k, expert_intermediate_dim=width)
    ffn = FFNConfig(intermediate_size=width) if moe is None else FFNConfig(moe=moe)
    attention = AttentionConfig(num_key_value_heads=heads)
    if mamba is not None:
        attention = AttentionConfig(mamba=MambaConfig(state_dim=4, num_heads=mamba, head_dim=6, num_groups=1))
    block = BlockConfig(attention=attention, ffn=ffn)
    return HookContext(SimpleNamespace(hidden_size=hidden), block, 3, batches)


def linear(weight: torch.Tensor, bias: torch.Tensor | None = None) -> nn.Linear:
    """Return a linear module with this weight [out, in]."""
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    module.weight = nn.Parameter(weight)
    if bias is not None:
        module.bias = nn.Parameter(bias)
    return module


def feed(hook: ActivationStatistic, batches: Iterable[torch.Tensor]) -> ActivationStatistic:
    """Run the hook's module over these inputs with the hook attached."""
    handle = hook.attach()
    for batch in batches:
        hook.module(batch)
    handle.remove()
    return hook


@pytest.fixture(scope="session")
def tools() -> Any:
    """The helpers of this folder, since test modules are not a package."""
    return SimpleNamespace(context=context, linear=linear, feed=feed)


def _mixtral() -> Any:
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

    config = MixtralConfig(hidden_size=24, intermediate_size=12, num_local_experts=8, num_experts_per_tok=2)
    config._experts_implementation = "eager"
    return MixtralSparseMoeBlock(config)


def _gpt_oss() -> Any:
    from transformers import GptOssConfig
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssMLP

    config = GptOssConfig(hidden_size=24, intermediate_size=12, num_local_experts=8, num_experts_per_tok=2)
    config._experts_implementation = "eager"
    return GptOssMLP(config)


def _deepseek() -> Any:
    from transformers import DeepseekV3Config
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE

    config = DeepseekV3Config(
        hidden_size=24, moe_intermediate_size=12, n_routed_experts=8, num_experts_per_tok=2, n_group=2, topk_group=1,
        n_shared_experts=1,
    )  # fmt: skip
    config._experts_implementation = "eager"
    return DeepseekV3MoE(config)


def _nemotron_h() -> Any:
    from transformers import NemotronHConfig
    from transformers.models.nemotron_h.modeling_nemotron_h import NemotronHMoE

    config = NemotronHConfig(
        hidden_size=24, moe_intermediate_size=12, n_routed_experts=8, num_experts_per_tok=2, n_group=1, topk_group=1,
        moe_shared_expert_intermediate_size=16, moe_latent_size=16,
    )  # fmt: skip
    config._experts_implementation = "eager"
    return NemotronHMoE(config)


@pytest.fixture
def make_sparse() -> Callable[[str], nn.Module]:
    """Build a stock sparse module with 8 experts of width 12, top-2, hidden 24."""

    def make(name: str) -> nn.Module:
        torch.manual_seed(11)
        module: nn.Module = {
            "mixtral": _mixtral,
            "gpt_oss": _gpt_oss,
            "deepseek": _deepseek,
            "nemotron_h": _nemotron_h,
        }[name]()
        with torch.no_grad():
            for key, tensor in [*module.named_parameters(), *module.named_buffers()]:
                tensor.normal_(0.0, 0.1 if "bias" in key else 0.4)
        return module.eval()

    return make
