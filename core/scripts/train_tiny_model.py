"""Train the tiny Llama of `core/tests/assets/tiny-llama` on the demonstration text of this repository.

The tests need a model whose weights carry structure, so that a good choice of channels and layers beats a bad one. Random
weights do not have any. This script makes one from scratch in a few minutes on two cores:

    python core/scripts/train_tiny_model.py core/tests/assets/tiny-llama

It writes the checkpoint in bfloat16, the tokenizer, and `training.json` with the figures it saw. The seed is fixed.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXT = Path(__file__).parents[2] / "demo" / "text"
SEED = 20
VOCABULARY = 512
LENGTH = 128
BATCH = 24
NOISE = 0.15
"""Share of input tokens that are replaced at random: without it, so little text is learnt by heart."""
END = "<|endoftext|>"


def train_tokenizer(text: str) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer: every string is encodable, and decoding gives it back."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(text.split("\n\n"), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=END, model_max_length=512
    )


def build_model() -> LlamaForCausalLM:
    """Return the untrained model: six layers, three key-value heads for six query heads, tied embeddings."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=96,
        intermediate_size=288,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=3,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


def loss_on(model: LlamaForCausalLM, tokens: torch.Tensor) -> float:
    """Return the mean loss in nats a token over `tokens` (1-D), cut into rows of `LENGTH`."""
    rows = tokens[: len(tokens) // LENGTH * LENGTH].view(-1, LENGTH)
    model.eval()
    with torch.inference_mode():
        losses = [model(input_ids=part, labels=part).loss.item() * len(part) for part in rows.split(BATCH)]
    model.train()
    return sum(losses) / len(rows)


def train(model: LlamaForCausalLM, tokens: torch.Tensor, held_out: torch.Tensor, steps: int) -> list[dict[str, float]]:
    """Train with AdamW and a cosine schedule on random windows of `tokens`; return the losses seen on the way."""
    decayed = [weight for weight in model.parameters() if weight.ndim == 2]
    others = [weight for weight in model.parameters() if weight.ndim != 2]
    groups = [{"params": decayed, "weight_decay": 0.3}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.98))
    peak, warmup = 4e-3, 50
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: peak * min(1.0, (step + 1) / warmup) * (0.05 + 0.475 * (1 + math.cos(math.pi * step / steps))),
    )
    generator = torch.Generator().manual_seed(SEED)
    history = []
    for step in range(1, steps + 1):
        starts = torch.randint(len(tokens) - LENGTH, (BATCH,), generator=generator)
        batch = torch.stack([tokens[start : start + LENGTH] for start in starts.tolist()])
        noise = torch.rand(batch.shape, generator=generator) < NOISE
        random = torch.randint(VOCABULARY, batch.shape, generator=generator)
        loss = model(input_ids=torch.where(noise, random, batch), labels=batch).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps:
            history.append({"step": step, "train_loss": loss.item(), "held_out_loss": loss_on(model, held_out)})
            print(f"step {step:5d}  loss {loss.item():.3f}  held out {history[-1]['held_out_loss']:.3f}", flush=True)
    return history


def main() -> None:
    """Train and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=800)
    arguments = parser.parse_args()

    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    calibration = (TEXT / "calibration.txt").read_text(encoding="utf-8")
    evaluation = (TEXT / "evaluation.txt").read_text(encoding="utf-8")
    tokenizer = train_tokenizer(calibration)
    tokens, held_out = (torch.tensor(tokenizer(text, verbose=False).input_ids) for text in (calibration, evaluation))

    model = build_model()
    begin = time.monotonic()
    history = train(model, tokens, held_out, arguments.steps)
    seconds = time.monotonic() - begin

    model = model.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.generation_config.do_sample = False
    model.save_pretrained(arguments.output)
    tokenizer.save_pretrained(arguments.output)
    final = loss_on(model.float(), held_out)
    record = {
        "parameters": model.num_parameters(),
        "training_tokens": len(tokens),
        "held_out_tokens": len(held_out),
        "steps": arguments.steps,
        "seconds": round(seconds, 1),
        "held_out_loss": round(final, 4),
        "held_out_perplexity": round(math.exp(final), 2),
        "history": history,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }
    (arguments.output / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in record.items() if key != "history"}, indent=1))


if __name__ == "__main__":
    main()
