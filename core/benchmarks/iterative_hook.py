"""How much time and memory the iterative importance hook needs, against the formula written down as it stands.

    python core/benchmarks/iterative_hook.py [--hidden 4096] [--channels 14336] [--tokens 2048] [--threads 2] [--all]

One batch of a down projection with half of its channels removed. Every variant runs in a process of its own, so that its
peak memory is its own (Linux only); weights and inputs are not counted. Time is CPU time, which other work disturbs
less than the clock. `formula` evaluates `sqrt(‖s‖² + 2 x (s W) + x² ‖w‖²)` with `s = y - x' Wᵀ` on whole tensors, in
float32 as the hook does, and with --all in the model's own type too (minutes on a CPU without bfloat16 instructions).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

VARIANTS = ("hook", "formula float32", "formula")


def main() -> None:
    """Run all variants and print a table, or one of them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--channels", type=int, default=14336)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.variant:
        print(json.dumps(measure(options)))
        return
    results = {}
    for variant in VARIANTS if options.all else VARIANTS[:2]:
        command = [sys.executable, __file__, *sys.argv[1:], "--variant", variant]
        results[variant] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    best = results["hook"]
    print(f"hidden {options.hidden}, channels {options.channels}, tokens {options.tokens}, weights {options.dtype}")
    print(f"{'variant':<18}{'CPU s':>10}{'x hook':>8}{'peak MiB':>10}{'x hook':>8}{'largest deviation':>20}")
    for variant, result in results.items():
        print(
            f"{variant:<18}{result['seconds']:>10.2f}{result['seconds'] / best['seconds']:>8.2f}"
            f"{result['mib']:>10.0f}{result['mib'] / best['mib']:>8.2f}{result['deviation']:>20.1e}"
        )


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Run one variant; its peak is what it needs in addition to weights, inputs and outputs."""
    import torch
    from torch import nn

    torch.set_num_threads(options.threads)
    from anyblock.modeling.process_memory import peak_memory, reset_peak_memory, resident

    torch.manual_seed(0)
    dtype = getattr(torch, options.dtype)
    linear = nn.Linear(options.channels, options.hidden, bias=False, device="meta", dtype=dtype)
    linear.weight = nn.Parameter(
        torch.empty(options.hidden, options.channels, dtype=dtype).normal_(0, 0.02), requires_grad=False
    )
    x = torch.empty(1, options.tokens, options.channels, dtype=dtype).normal_()
    y = torch.empty(1, options.tokens, options.hidden, dtype=dtype)
    full = linear.weight.float()
    for start in range(0, options.tokens, 256):
        rows = slice(start, start + 256)
        y[:, rows] = (x[:, rows].float() @ full.t()).to(dtype)
    del full
    removed = torch.randperm(options.channels)[: options.channels // 2]
    run = (_hook if options.variant == "hook" else _formula)(linear, x, y, removed, options.variant)
    if not reset_peak_memory():
        sys.exit("the peak of memory can be counted on Linux alone")
    start = resident()
    began = time.process_time()
    result = run()
    seconds = time.process_time() - began
    mib = ((peak_memory() or 0) - start) / (1 << 20)
    return {"seconds": seconds, "mib": mib, "deviation": _deviation(linear, x, removed, result)}


def _hook(linear: Any, x: Any, y: Any, removed: Any, variant: str) -> Callable[[], Any]:
    from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig
    from anyblock.importance import HookContext, IterativeChannelContributionHook

    block = BlockConfig(attention=AttentionConfig(no_op=True), ffn=FFNConfig(intermediate_size=x.shape[-1]))
    # With twice as many batches as channels none goes after the first one: the sums are still there to look at.
    hook = IterativeChannelContributionHook(linear, HookContext(SimpleNamespace(), block, 0, 2 * x.shape[-1]))
    hook.removed = removed

    def run() -> Any:
        hook(linear, (x,), {}, y)
        return hook.contribution

    return run


def _formula(linear: Any, x: Any, y: Any, removed: Any, variant: str) -> Callable[[], Any]:
    import torch
    from torch.nn import functional

    def run() -> Any:
        """Return the scores of all channels by the formula as it is written down."""
        weight = linear.weight.detach()
        inputs, outputs = x, y
        if variant.endswith("float32"):
            weight, inputs, outputs = weight.float(), x.float(), y.float()
        kept = inputs.clone()
        kept[..., removed] = 0
        s = outputs - functional.linear(kept, weight)
        squared = s.square().sum(dim=-1, keepdim=True)
        norms = weight.square().sum(dim=0)
        contribution = torch.sqrt(squared + 2 * inputs * (s @ weight) + inputs.square() * norms + 1e-8)
        result = contribution.float().mean(dim=(0, 1))
        result[removed] = float("inf")
        return result

    return run


def _deviation(linear: Any, x: Any, removed: Any, found: Any) -> float:
    """Return the largest relative deviation from float64, over a few of the channels that are left."""
    import torch

    left = torch.ones(x.shape[-1], dtype=torch.bool)
    left[removed] = False
    some = left.nonzero().squeeze(1)[:: max(1, int(left.sum()) // 8)]
    total = torch.zeros(len(some), dtype=torch.float64)
    for part in x[0].split(256):
        error = torch.zeros(len(part), linear.weight.shape[0], dtype=torch.float64)
        for block in removed.split(512):
            error += part[:, block].double() @ linear.weight[:, block].double().t()
        for place, channel in enumerate(some):
            step = part[:, channel].double().unsqueeze(1) * linear.weight[:, channel].double()
            total[place] += (error + step).norm(dim=1).sum()
    wanted = total / x.shape[1]
    return float(((found[some].double() - wanted) / wanted).abs().max())


if __name__ == "__main__":
    main()
