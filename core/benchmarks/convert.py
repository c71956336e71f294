"""Compare `anyblock convert` with `cp -r` on a sharded random Llama checkpoint: time, and peak memory over a bare
interpreter.

Both run as fresh processes, alternating, with the source in the page cache and nothing left to write back. Two
comparisons: *durable* times `cp -r` followed by `sync -f` against `convert`, which waits for the disk by itself,
    followed by the same
`sync -f`; *cached* times `cp -r` alone against `convert` with its fsync switched off. Peak memory is VmHWM, which,
unlike `ru_maxrss`, starts anew in a fresh process.

    python core/benchmarks/convert.py --size 2 --runs 5 --json result.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
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


def timed(commands: list[list[str]]) -> tuple[float, str]:
    """Run commands one after the other; return seconds and what they printed."""
    start = time.perf_counter()
    printed = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for command in commands]
    return time.perf_counter() - start, "".join(printed)


def measure(source: Path, work: Path, mode: str, runs: int) -> tuple[list[float], list[float], list[str]]:
    """Return the seconds of `cp` and of `convert`, and what the latter's processes said about memory."""
    copied, converted = work / "copied", work / "converted"
    copy = [["cp", "-r", str(source), str(copied)]]
    convert = [[sys.executable, "-c", CHILD, str(source), str(converted), mode]]
    if mode == "durable":
        copy.append(["sync", "-f", str(work)])
        convert.append(["sync", "-f", str(work)])
    times: dict[str, list[float]] = {"cp": [], "convert": []}
    said: list[str] = []
    for number in range(runs):
        pair = [("cp", copy, copied), ("convert", convert, converted)]
        for name, commands, target in pair if number % 2 == 0 else pair[::-1]:
            settle(source, target)
            seconds, printed = timed(commands)
            times[name].append(seconds)
            if name == "convert":
                said.append(printed)
            shutil.rmtree(target)
    return times["cp"], times["convert"], said


def main() -> None:
    """Run the comparison and print it."""
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
        result: dict[str, object] = {"bytes": total, "runs": options.runs}
        for mode in ("durable", "cached"):
            copy, convert, said = measure(source, work, mode, options.runs)
            lines = [line.split() for line in said]
            over = max(int(peak) - int(bare) for bare, peak, _, _ in lines) / 1024
            ratio = statistics.median(convert) / statistics.median(copy)
            result[mode] = {
                "cp_seconds": copy,
                "convert_seconds": convert,
                "ratio_of_medians": ratio,
                "ratio_of_minima": min(convert) / min(copy),
                "peak_mib_over_interpreter": over,
                "imported_torch_or_transformers": any("True" in line for line in lines),
            }
            print(
                f"{mode:8} {total / 1e9:.2f} GB  cp {statistics.median(copy):6.2f} s"
                f"  convert {statistics.median(convert):6.2f} s"
                f"  ratio {ratio:.2f} (fastest of each: {min(convert) / min(copy):.2f})"
                f"  peak +{over:.1f} MiB over the interpreter"
            )
        if options.json is not None:
            options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
