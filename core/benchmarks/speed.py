"""The processor time that a teacher and its child take to prefill and to decode, in one thread, taking turns.

    python core/benchmarks/speed.py [TEACHER CHILD]

`anyblock bench` shows the time that passes, which says more about other work where there is any. Without arguments it runs
the tests' trained Llama and a child of it that lacks half of its halves.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from anyblock import convert_model, get_family, load_model
from anyblock.candidates.candidate import NO_OP, Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.modeling.skeleton import load_hf_config
from anyblock.realize.realize import realize

ASSET = Path(__file__).parents[1] / "tests" / "assets" / "tiny-llama"
PROMPT, NEW, ROUNDS = 128, 9, 9


def small_child(folder: Path) -> Path:
    """Write a child of the tests' Llama without the attention of odd layers and the ffn of even ones."""
    teacher = SubblockCheckpoint.open(convert_model(ASSET, folder / "teacher"))
    chosen = []
    for layer, block in enumerate(teacher.block_configs):
        half = "attention" if layer % 2 else "ffn"
        chosen.append(Candidate(layer, half, NO_OP, 0, block.with_half(half, no_op=True)))
    weights = CandidateWeights(teacher, get_family("llama"), load_hf_config(teacher.path), {})
    return realize(teacher, chosen, weights, folder / "child")


def measured(model: Any, ids: torch.Tensor) -> tuple[float, float]:
    """Return the ms of processor time of one prefill, and of one decoding step after it."""
    begin = time.process_time()
    out = model(ids, use_cache=True, logits_to_keep=1)
    between = time.process_time()
    for _ in range(NEW - 1):
        out = model(out.logits[:, -1:].argmax(-1), past_key_values=out.past_key_values, use_cache=True)
    return (between - begin) * 1000, (time.process_time() - between) * 1000 / (NEW - 1)


def main() -> None:
    """Measure, and fail when the child is not faster."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = sys.argv[1:3] or [ASSET, small_child(Path(folder))]
        models = [load_model(path, dtype="float32") for path in paths]
        ids = torch.randint(0, models[0].config.vocab_size, (1, PROMPT), generator=torch.Generator().manual_seed(0))
        times: list[list[tuple[float, float]]] = [[], []]
        with torch.no_grad():
            for turn in range(ROUNDS + 1):
                for which in (0, 1) if turn % 2 else (1, 0):
                    taken = measured(models[which], ids)
                    if turn:
                        times[which].append(taken)
        slower = 0
        for index, name in enumerate((f"prefill of {PROMPT} tokens", "decoding step")):
            before, after = (statistics.median(taken[index] for taken in each) for each in times)
            print(f"{name}: teacher {before:.1f} ms, child {after:.1f} ms, {after / before:.2f}x")
            slower += after >= before
        if slower:
            raise SystemExit("the child is not faster")


if __name__ == "__main__":
    main()
