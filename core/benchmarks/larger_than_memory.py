"""Compress a checkpoint of several times the memory that the process is given, start to finish, and report peak and time.

    python core/benchmarks/larger_than_memory.py [--size 3] [--limit 1] [--scratch DIR] [--json FILE]

A Llama-shaped checkpoint with random bfloat16 weights of `size` GiB is written, and `anyblock compress` runs on it in a process of
its own: importance, scores, search, refinement, repair, child and evaluation. `limit` GiB is what that process may have in memory
in all: its resident set, in which mapped files count as much as its own pages, so that mapping the checkpoint does not get around
it. (An address-space limit would count what is mapped and never read; a memory control group would not count pages of files that
it takes away again, and needs rights that a user may not have.) A watchdog looks every 20 ms and kills the process when it is above
the limit, and afterwards the kernel's own record of the peak is held against the limit, so that no moment is missed: the run
asks for it, and starts it anew, with every stage. As a control the same run without `memory.limit` has to be killed.

The file cache belongs to the machine, not to the process, and is not limited. Swap that the process used is reported. The default
takes about half an hour on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

GIB = 1 << 30
HIDDEN, FFN, VOCAB, HEADS, KV_HEADS = 1536, 2048, 4096, 16, 4
BUDGET = "params=0.8x"
SETTINGS = [
    "dtype=float32",
    "data.block_size=64",
    "data.calibration_tokens=256",
    "data.scoring_tokens=64",
    "data.evaluation_tokens=128",
    "data.batch_size=1",
    "pruning.ffn.sizes=[0.5]",
    "scoring.probes=2",
    "scoring.exact_sample=2",
    "search.refine_rounds=1",
]
BUILD = """
import sys
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast
from pathlib import Path
from safetensors.torch import save_file
import json
folder, layers = Path(sys.argv[1]), int(sys.argv[2])
hidden, ffn, vocab, heads, kv = map(int, sys.argv[3:8])
config = LlamaConfig(
    vocab_size=vocab, hidden_size=hidden, intermediate_size=ffn, num_hidden_layers=layers, num_attention_heads=heads,
    num_key_value_heads=kv, max_position_embeddings=512, tie_word_embeddings=False, dtype=torch.bfloat16,
    architectures=["LlamaForCausalLM"],
)
config.save_pretrained(folder)
words = {"<unk>": 0} | {f"w{index}": index for index in range(1, vocab)}
tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)
generator = torch.Generator().manual_seed(0)
def random(*shape):
    return (torch.randn(shape, generator=generator) * (shape[-1] ** -0.5)).bfloat16()
def layer(index):
    width = hidden // heads * kv
    shapes = {
        "self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (width, hidden), "self_attn.v_proj": (width, hidden),
        "self_attn.o_proj": (hidden, hidden), "mlp.gate_proj": (ffn, hidden), "mlp.up_proj": (ffn, hidden),
        "mlp.down_proj": (hidden, ffn),
    }
    tensors = {f"model.layers.{index}.{name}.weight": random(*shape) for name, shape in shapes.items()}
    for name in ("input_layernorm", "post_attention_layernorm"):
        tensors[f"model.layers.{index}.{name}.weight"] = torch.ones(hidden, dtype=torch.bfloat16)
    return tensors
weight_map, total = {}, 0
def write(file, tensors):
    global total
    save_file(tensors, folder / file, {"format": "pt"})
    weight_map.update(dict.fromkeys(tensors, file))
    total += sum(tensor.nbytes for tensor in tensors.values())
write("model-outside.safetensors", {
    "model.embed_tokens.weight": random(vocab, hidden), "lm_head.weight": random(vocab, hidden),
    "model.norm.weight": torch.ones(hidden, dtype=torch.bfloat16),
})
for index in range(layers):
    write(f"model-{index}.safetensors", layer(index))
(folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}))
"""


@dataclass(frozen=True)
class Outcome:
    """How a limited process ended.

    Attributes:
        code: its exit code; negative for a signal.
        seconds: wall time.
        peak: highest resident set in bytes, by the kernel's record; of a compression, in any of its stages.
        swapped: most bytes that were seen in swap.
        killed: whether the watchdog ended it.
    """

    code: int
    seconds: float
    peak: int
    swapped: int
    killed: bool


def main() -> int:
    """Build, run, report; return 1 when the run failed or exceeded the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=float, default=3.0, help="GiB of weights")
    parser.add_argument("--limit", type=float, default=1.0, help="GiB of memory")
    parser.add_argument("--scratch", type=Path, help="where the checkpoint goes; needs about 3 times its size")
    parser.add_argument("--without-control", action="store_true", help="leave out the run that has to be killed")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        sizes = int(arguments.size * GIB), int(arguments.limit * GIB)
        result = measure(Path(scratch), *sizes, control=not arguments.without_control)
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["passed"] else 1


def measure(scratch: Path, size: int, limit: int, *, control: bool) -> dict[str, object]:
    """Return the figures by name."""
    model, text = scratch / "model", scratch / "text.txt"
    model.mkdir()
    per_layer = 2 * (2 * HIDDEN * HIDDEN * (HEADS + KV_HEADS) // HEADS + 3 * HIDDEN * FFN)
    layers = -(-(size - 4 * VOCAB * HIDDEN) // per_layer)
    shape = map(str, (HIDDEN, FFN, VOCAB, HEADS, KV_HEADS))
    subprocess.run([sys.executable, "-c", BUILD, str(model), str(layers), *shape], check=True)
    chance = random.Random(0)
    text.write_text("\n".join(" ".join(f"w{chance.randrange(1, VOCAB)}" for _ in range(16)) for _ in range(200)))
    held = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    print(f"{layers} layers, {held / GIB:.2f} GiB; limit {limit / GIB:.2f} GiB", file=sys.stderr)

    def command(output: Path, *more: str) -> list[str]:
        given = [str(model), str(output), "--data", str(text), "--budget", BUDGET, *SETTINGS, *more]
        return [sys.executable, "-m", "anyblock", "compress", *given]

    child = scratch / "child"
    outcome = limited(command(child, f"memory.limit={limit}"), limit)
    summary_file = Path(f"{child}.run") / "summary.json"
    summary = json.loads(summary_file.read_text()) if outcome.code == 0 else None
    if summary:
        peaks = [stage["memory"] or 0 for stage in summary["stages"]]
        outcome = replace(outcome, peak=max(outcome.peak, *peaks))
    shutil.rmtree(Path(f"{child}.run") / "teacher", ignore_errors=True)
    unbounded = limited(command(scratch / "control"), limit) if control else None
    return {
        "passed": outcome.code == 0
        and outcome.peak <= limit
        and not outcome.swapped
        and (unbounded is None or unbounded.killed),
        "checkpoint_bytes": held,
        "limit_bytes": limit,
        "ratio": held / limit,
        "layers": layers,
        **asdict(outcome),
        "peak_of_limit": outcome.peak / limit,
        "stages": {line["name"]: line["seconds"] for line in summary["stages"]} if summary else None,
        "params": summary["costs"]["params"] / summary["teacher_costs"]["params"] if summary else None,
        "control": None if unbounded is None else asdict(unbounded),
        "machine": f"{processor()}, {os.cpu_count()} processors, {os.environ.get('OMP_NUM_THREADS', 'all')} threads",
    }


def limited(command: list[str], limit: int) -> Outcome:
    """Run a command, and kill it when its resident set exceeds `limit` bytes."""
    begin = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    status, swapped, killed = Path(f"/proc/{process.pid}/status"), 0, False
    while True:
        pid, ended, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        if "VmRSS" in fields:
            swapped = max(swapped, kibibytes(fields["VmSwap"]))
            if kibibytes(fields["VmRSS"]) > limit and not killed:
                killed = True
                process.kill()
        time.sleep(0.02)
    process.returncode = os.waitstatus_to_exitcode(ended)
    # In a process that was started from this small one, the record of the peak is its own.
    return Outcome(process.returncode, time.monotonic() - begin, usage.ru_maxrss * 1024, swapped, killed)


def kibibytes(text: str) -> int:
    """Return the bytes that a line of /proc/PID/status states."""
    return int(text.split()[0]) * 1024


def processor() -> str:
    """Return the processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    sys.exit(main())
