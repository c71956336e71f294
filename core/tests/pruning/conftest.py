"""Real transformers models with random weights, by their checkpoint tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig, MoEConfig
from anyblock.contract.pruning_mixin import PruningMixIn
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]


def block_of(config: Any, *, sparse: bool = False, expert_dim: str = "moe_intermediate_size") -> BlockConfig:
    """Return the block config that every layer of a homogeneous model has."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    attention = AttentionConfig(num_key_value_heads=heads)
    if not sparse:
        width = getattr(config, "intermediate_size", None) or config.n_inner
        return BlockConfig(attention=attention, ffn=FFNConfig(intermediate_size=width))
    experts = getattr(config, "num_local_experts", None) or config.num_experts
    moe = MoEConfig(
        num_local_experts=experts,
        num_experts_per_tok=config.num_experts_per_tok,
        expert_intermediate_dim=getattr(config, expert_dim),
    )
    return BlockConfig(attention=attention, ffn=FFNConfig(moe=moe))


@dataclass
class Teacher:
    """A model on disk: its configuration, its checkpoint tensors, and what it answers."""

    folder: Path
    config: Any
    layers: tuple[int, ...]
    block: BlockConfig

    @cached_property
    def tensors(self) -> Tensors:
        return load_file(self.folder / "model.safetensors")

    def load(self, tensors: Mapping[str, torch.Tensor] | None = None, **changes: Any) -> Any:
        """Build the stock model from these checkpoint tensors; loading fails on anything missing or mis-shaped."""
        from transformers import AutoModelForCausalLM

        config = type(self.config).from_dict({**self.config.to_dict(), **changes})
        if tensors is None:
            return AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32).eval()
        folder = self.folder / "other"
        folder.mkdir(exist_ok=True)
        save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, folder / "model.safetensors")
        config.save_pretrained(folder)
        model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
        assert not info["missing_keys"], info
        assert not info["unexpected_keys"], info
        assert not info["mismatched_keys"], info
        return model.eval()

    def apply(self, step: Callable[[int, Tensors], Tensors], tensors: Tensors | None = None) -> Tensors:
        """Apply a step to every layer in turn."""
        result = dict(self.tensors if tensors is None else tensors)
        for layer in self.layers:
            result = step(layer, result)
        return result

    def sorted_by(self, mixin: PruningMixIn, *, seed: int = 0) -> Tensors:
        """Sort every layer's units in an order of its own."""

        def step(layer: int, tensors: Tensors) -> Tensors:
            generator = torch.Generator().manual_seed(seed + layer)
            order = torch.randperm(mixin.size(self.block), generator=generator)
            return mixin.sort(layer, tensors, self.block, order, self.config)

        return self.apply(step)

    def narrowed(self, mixin: PruningMixIn, child: BlockConfig, tensors: Tensors) -> Tensors:
        return self.apply(lambda layer, t: mixin.narrow(layer, t, self.block, child, self.config), tensors)

    def masked(self, mixin: PruningMixIn, child: BlockConfig, tensors: Tensors) -> Tensors:
        return self.apply(lambda layer, t: mixin.mask(layer, t, self.block, child, self.config), tensors)


def logits(model: Any, ids: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return a model's logits, [batch, tokens, vocabulary]; in float64 rounding takes no part in what is compared."""
    with torch.no_grad():
        result: torch.Tensor = model.to(dtype)(ids).logits
    assert torch.isfinite(result).all()
    return result


@pytest.fixture
def ids() -> torch.Tensor:
    """Token ids [2, 17]."""
    return torch.randint(0, 96, (2, 17), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def make_teacher(tmp_path: Path) -> Callable[..., Teacher]:
    """Build and save a model of a transformers class, with weights that are far from zero and biases that matter."""

    def make(config: Any, **block: Any) -> Teacher:
        from transformers import AutoModelForCausalLM

        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
                if "inv_freq" in name or not tensor.is_floating_point():
                    continue
                if tensor.dim() > 1:
                    tensor.normal_(0.0, 0.25)
                else:
                    tensor.uniform_(-0.5, 0.5).add_(1.0 if "norm" in name or "ln_" in name else 0.0)
        model.save_pretrained(tmp_path / "teacher")
        return Teacher(
            tmp_path / "teacher",
            model.config,
            tuple(range(model.config.num_hidden_layers)),
            block_of(model.config, **block),
        )

    return make


def assert_close(found: torch.Tensor, wanted: torch.Tensor, tolerance: float = 2e-5) -> None:
    """Compare logits relative to their size."""
    difference = (found - wanted).abs().max().item()
    assert difference <= tolerance * max(wanted.abs().max().item(), 1.0), difference


@pytest.fixture
def tools() -> Any:
    """The helpers of this folder, since test modules are not a package."""
    from types import SimpleNamespace

    return SimpleNamespace(logits=logits, assert_close=assert_close, block_of=block_of, Teacher=Teacher)
