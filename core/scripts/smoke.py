"""Import every module of core and run the main job once, where nothing but core and one adapter is installed.

`nox -s minimal` runs it, so that an undeclared dependency shows: python core/scripts/smoke.py
"""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
import tempfile
from pathlib import Path

import anyblock

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "core" / "tests" / "assets" / "tiny-llama"
TEXT = ROOT / "demo" / "text" / "calibration.txt"
SMALL = ["data.block_size=64", "data.calibration_tokens=512", "data.scoring_tokens=128", "data.evaluation_tokens=256"]


def main() -> None:
    """Import and run; exits with the first failure."""
    names = [
        found.name
        for found in pkgutil.walk_packages(anyblock.__path__, "anyblock.")
        if not found.name.endswith("__main__")
    ]
    for name in names:
        importlib.import_module(name)
    print(f"{len(names)} modules imported")
    with tempfile.TemporaryDirectory() as folder:
        compress = ["compress", str(MODEL), "child", "--budget", "params=0.9x", "--data", str(TEXT), *SMALL]
        commands = [
            ["families"],
            ["list"],
            ["inspect", str(MODEL)],
            [*compress, "search.refine_rounds=1"],
            ["search", "child.run", "--budget", "params=0.8x"],
            ["evaluate", "child", "--teacher", str(MODEL), "--data", str(TEXT), "--max-tokens", "512"],
            ["generate", "child", "Once upon a time", "--max-new-tokens", "4"],
            ["export", "child", "exported", "--format", "transformers"],
        ]
        for command in commands:
            done = subprocess.run(
                [sys.executable, "-m", "anyblock", *command], cwd=folder, capture_output=True, text=True, check=False
            )
            if done.returncode:
                sys.exit(f"anyblock {' '.join(command)}\n{done.stdout}\n{done.stderr}")
            print(f"anyblock {command[0]}: ok")
        for command, distribution in (
            (["push", "child", "owner/child", "--dry-run"], "anyblock-hub"),
            (["search", "child.run", "--budget", "latency=0.9x"], "anyblock-latency"),
            (["export", "child", "other", "--format", "gguf"], "anyblock-gguf"),
            ([*compress, "distillation.blocks.enabled=true"], "anyblock-distillation"),
            (["evaluate", "child", "--data", str(MODEL / "config.json")], "anyblock-data"),
        ):
            done = subprocess.run(
                [sys.executable, "-m", "anyblock", *command], cwd=folder, capture_output=True, text=True, check=False
            )
            if done.returncode != 2 or f"pip install {distribution}" not in done.stderr:
                sys.exit(f"anyblock {' '.join(command)} does not name {distribution}\n{done.stdout}\n{done.stderr}")
            print(f"anyblock {command[0]}: names {distribution}")


if __name__ == "__main__":
    main()
