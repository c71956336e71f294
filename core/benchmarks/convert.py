"""Compare `anyblock convert` with `cp -r` on a sharded random Llama checkpoint: time, and memory over a bare interpreter.

Both run as fresh processes, alternating, with the source in the page cache and nothing left to write back. Three lines:

durable  `cp -r` and `sync -f` against `convert` (which waits for the disk by itself) and the same `sync -f`;
cached   `cp -r` alone against `convert` with its fsync switched off;
unequal  `cp -r` alone against `convert` as it is: one copy may be lost by a power failure, the other not.

Peak memory is VmHWM, which, unlike `ru_maxrss`, starts anew in a fresh process. Processor time hardly depends on what else
the machine does.

    python core/benchmarks/convert.py --size 2 --runs 5 --json result.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

HIDDEN, FFN, VOCAB, HEADS, KV_HEADS = 2048, 8192, 32000, 32, 8
CHILD = """
import os, sys
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
bare = peak()
if sys.argv[3] == "cached":
    os.fsync = lambda descriptor: None
from anyblock import convert_model
convert_model(sys.argv[1], sys.argv[2])
print(bare, peak(), "torch" in sys.modules, "transformers" in sys.modules)
"""


def tensors(layers: int) -> dict[str, tuple[int, ...]]:
    """Return names and shapes in the order in which `save_pretrained` stores them."""
    kv = HIDDEN // HEADS * KV_HEADS
    shapes: dict[str, tuple[int, ...]] = {
        "lm_head.weight": (VOCAB, HIDDEN),
        "model.embed_tokens.weight": (VOCAB, HIDDEN),
    }
    for index in range(layers):
        layer = {
            "input_layernorm.weight": (HIDDEN,),
            "mlp.down_proj.weight": (HIDDEN, FFN),
            "mlp.gate_proj.weight": (FFN, HIDDEN),
            "mlp.up_proj.weight": (FFN, HIDDEN),
            "post_attention_layernorm.weight": (HIDDEN,),
            "self_attn.k_proj.weight": (kv, HIDDEN),
            "self_attn.o_proj.weight": (HIDDEN, HIDDEN),
            "self_attn.q_proj.weight": (HIDDEN, HIDDEN),
            "self_attn.v_proj.weight": (kv, HIDDEN),
        }
        shapes |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    return shapes | {"model.norm.weight": (HIDDEN,)}


def nbytes(shape: tuple[int, ...]) -> int:
    """Return the bytes of a bfloat16 tensor."""
    total = 2
    for size in shape:
        total *= size
    return total


def build(folder: Path, size: float, shard: int) -> int:
    """Write a checkpoint of about `size` GB in shards of at most `shard` bytes; return the bytes of its tensors."""
    outer = sum(map(nbytes, tensors(0).values()))
    per_layer = sum(map(nbytes, tensors(1).values())) - outer
    layers = max(1, round((size * 1e9 - outer) / per_layer))
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    for name, shape in tensors(layers).items():
        if shards[-1] and sum(map(nbytes, shards[-1].values())) + nbytes(shape) > shard:
            shards.append({})
        shards[-1][name] = shape
    weight_map: dict[str, str] = {}
    block = random.Random(0).randbytes(16 << 20)
    for number, content in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, shape in content.items():
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + nbytes(shape)]}
            end += nbytes(shape)
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with (folder / file).open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            for start in range(0, end, len(block)):
                stream.write(block[: min(len(block), end - start)])
        weight_map |= dict.fromkeys(content, file)
    total = sum(map(nbytes, tensors(layers).values()))
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "dtype": "bfloat16",
        "hidden_size": HIDDEN,
        "intermediate_size": FFN,
        "model_type": "llama",
        "num_attention_heads": HEADS,
        "num_hidden_layers": layers,
        "num_key_value_heads": KV_HEADS,
        "rms_norm_eps": 1e-05,
        "tie_word_embeddings": False,
        "vocab_size": VOCAB,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return total


def settle(source: Path, target: Path) -> None:
    """Remove the last output, wait for the disk, and read the source once."""
    shutil.rmtree(target, ignore_errors=True)
    os.sync()
    buffer = bytearray(1 << 20)
    for file in sorted(source.iterdir()):
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass


@dataclass
class Runs:
    """What one command took, run by run, in seconds of wall clock and of processor time."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)

    def add(self, commands: list[list[str]]) -> None:
        """Run commands one after the other as one run."""
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        self.printed += [
            subprocess.run(command, check=True, capture_output=True, text=True).stdout for command in commands
        ]
        self.wall.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def measure(source: Path, work: Path, mode: str, runs: int) -> tuple[Runs, Runs]:
    """Return the runs of `cp` and of `convert`, which alternate."""
    copied, converted = work / "copied", work / "converted"
    copy = [["cp", "-r", str(source), str(copied)]]
    convert = [[sys.executable, "-c", CHILD, str(source), str(converted), mode]]
    if mode == "durable":
        copy.append(["sync", "-f", str(work)])
        convert.append(["sync", "-f", str(work)])
    results = Runs(), Runs()
    for number in range(runs):
        pair = list(zip(results, (copy, convert), (copied, converted), strict=True))
        for result, commands, target in pair if number % 2 == 0 else pair[::-1]:
            settle(source, target)
            result.add(commands)
            shutil.rmtree(target)
    return results


def summary(mode: str, copy: Runs, convert: Runs) -> dict[str, object]:
    """Return the figures of one comparison and print them."""
    lines = [line.split() for line in convert.printed if line]
    result: dict[str, object] = {
        "cp_seconds": copy.wall,
        "convert_seconds": convert.wall,
        "ratio": statistics.median(b / a for a, b in zip(copy.wall, convert.wall, strict=True)),
        "cpu_ratio": statistics.median(convert.cpu) / statistics.median(copy.cpu),
        "peak_mib_over_interpreter": max(int(peak) - int(bare) for bare, peak, _, _ in lines) / 1024,
        "imported_torch_or_transformers": any("True" in line for line in lines),
    }
    print(
        f"{mode:8} cp {statistics.median(copy.wall):.2f} s, convert {statistics.median(convert.wall):.2f} s: "
        f"ratio {result['ratio']:.2f} (processor time: {result['cpu_ratio']:.2f}); "
        f"peak +{result['peak_mib_over_interpreter']:.1f} MiB over the interpreter"
    )
    return result


def main() -> None:
    """Run the comparisons and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=float, default=2.0, help="size of the checkpoint in GB (10^9 bytes)")
    parser.add_argument("--shard", type=float, default=0.5, help="largest shard in GB")
    parser.add_argument("--runs", type=int, default=5, help="runs of each kind and mode")
    parser.add_argument("--folder", type=Path, default=None, help="where to work; a temporary folder otherwise")
    parser.add_argument("--json", type=Path, default=None, help="also write the result as JSON to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="anyblock-convert-", dir=options.folder) as name:
        work = Path(name)
        source = work / "source"
        source.mkdir()
        total = build(source, options.size, int(options.shard * 1e9))
        print(f"{total / 1e9:.2f} GB of tensors, {options.runs} runs of each; ratios are medians over the runs")
        durable = measure(source, work, "durable", options.runs)
        cached = measure(source, work, "cached", options.runs)
    result = {
        "bytes": total,
        "durable": summary("durable", *durable),
        "cached": summary("cached", *cached),
        # what a stopwatch shows that does not ask whether the copy is on the disk
        "unequal": summary("unequal", cached[0], durable[1]),
    }
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
