"""Measure how much structure the tiny model's weights have: what its pruning costs when channels are chosen well or badly.

python core/scripts/check_tiny_model.py core/tests/assets/tiny-llama

For several shares of ffn channels kept in every layer, it prints KL(whole || pruned) in nats a token on held-out text when
the channels are those that `IndependentChannelContributionHook` ranks highest, random ones, or those ranked lowest; and
the KL of removing each half of each layer alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig
from anyblock.contract.importance_hook import HookContext
from anyblock.importance.channels import IndependentChannelContributionHook
from torch import nn
from transformers import AutoTokenizer, LlamaForCausalLM

TEXT = Path(__file__).parents[2] / "demo" / "text"
ROWS, LENGTH, BATCH = 64, 128, 16
RANDOM_ORDERS = 3

Order = Callable[[torch.Tensor], torch.Tensor]


def channel_scores(model: LlamaForCausalLM, rows: torch.Tensor) -> list[torch.Tensor]:
    """Return one score a channel for every layer."""
    config = model.config
    block = BlockConfig(
        attention=AttentionConfig(num_key_value_heads=config.num_key_value_heads),
        ffn=FFNConfig(intermediate_size=config.intermediate_size),
    )
    hooks = [
        IndependentChannelContributionHook(layer.mlp.down_proj, HookContext(config, block, index, len(rows) // BATCH))
        for index, layer in enumerate(model.model.layers)
    ]
    handles = [hook.attach() for hook in hooks]
    log_probabilities(model, rows)
    for handle in handles:
        handle.remove()
    return [hook.scores() for hook in hooks]


def log_probabilities(model: LlamaForCausalLM, rows: torch.Tensor) -> torch.Tensor:
    """Return the log-probabilities of the next token, `[rows, length, vocabulary]`."""
    with torch.inference_mode():
        return torch.cat([model(input_ids=part).logits.log_softmax(dim=-1) for part in rows.split(BATCH)])


class Damage:
    """KL of a model with some weight columns at zero to the model as it is, in nats a token."""

    def __init__(self, model: LlamaForCausalLM, rows: torch.Tensor) -> None:
        self.model = model
        self.rows = rows
        self.whole = log_probabilities(model, rows)

    def of(self, removed: dict[nn.Linear, torch.Tensor]) -> float:
        """Set these columns to zero, measure, and put them back."""
        kept = {linear: linear.weight.detach().clone() for linear in removed}
        with torch.no_grad():
            for linear, columns in removed.items():
                linear.weight[:, columns] = 0
            damaged = log_probabilities(self.model, self.rows)
            for linear, weight in kept.items():
                linear.weight.copy_(weight)
        return (self.whole.exp() * (self.whole - damaged)).sum(dim=-1).mean().item()


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    folder = parser.parse_args().model
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def rows(name: str) -> torch.Tensor:
        tokens = tokenizer((TEXT / name).read_text(encoding="utf-8"), verbose=False).input_ids
        return torch.tensor(tokens[: ROWS * LENGTH]).view(ROWS, LENGTH)

    scores = channel_scores(model, rows("calibration.txt"))
    damage = Damage(model, rows("evaluation.txt"))
    layers = model.model.layers

    def pruned(share: float, order: Order) -> float:
        dropped = [order(score)[round(share * len(score)) :] for score in scores]
        return damage.of({layer.mlp.down_proj: columns for layer, columns in zip(layers, dropped, strict=True)})

    generator = torch.Generator().manual_seed(0)
    print("| channels kept | by score | random (mean of 3) | reversed |\n|---|---|---|---|")
    for share in (0.75, 0.5, 0.25):
        chance = [
            pruned(share, lambda score: torch.randperm(len(score), generator=generator)) for _ in range(RANDOM_ORDERS)
        ]
        best, worst = pruned(share, lambda score: (-score).argsort()), pruned(share, torch.argsort)
        print(f"| {share:.0%} | {best:.3f} | {sum(chance) / RANDOM_ORDERS:.3f} | {worst:.3f} |", flush=True)
    print("\n| layer | without its attention | without its ffn |\n|---|---|---|")
    for index, layer in enumerate(layers):
        halves = (layer.self_attn.o_proj, layer.mlp.down_proj)
        costs = [damage.of({half: torch.arange(half.in_features)}) for half in halves]
        print(f"| {index} | {costs[0]:.3f} | {costs[1]:.3f} |", flush=True)


if __name__ == "__main__":
    main()
