"""How long discovery takes with many distributions installed; no plugin, torch or transformers is imported on the way.

Writes hand-made `.dist-info` folders, half of them adapters and half ordinary packages with long metadata, puts them at
the head of the path of fresh interpreters (whose real site-packages stay behind them), and compares the time of a bare
interpreter with that of discovery alone and of the whole command `anyblock families --json`. The limits are on processor
time: the work is done by one thread, and wall time would measure what else the machine is doing.

    python core/benchmarks/discovery.py [--distributions 300] [--repeat 15]
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import distributions
from pathlib import Path

DISCOVER = "from anyblock.plugins import PluginRegistry; PluginRegistry.discover()"
COMMAND = "from anyblock.cli import main; main(['families', '--json'])"
SPY = f"{DISCOVER}\nimport sys; print([m for m in ('torch', 'transformers', 'anyblock_llama') if m in sys.modules])"


def populate(folder: Path, count: int) -> None:
    """Write `count` distributions: every second one an adapter, the others packages with console scripts."""
    for index in range(count):
        adapter = index % 2 == 0
        name = f"anyblock-bench-{index}" if adapter else f"package-{index}"
        info = folder / f"{name.replace('-', '_')}-1.{index}.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: 1.{index}", "Summary: made for a measurement"]
        lines += [f"Classifier: Programming Language :: Python :: 3.{minor}" for minor in range(8, 15)]
        if adapter:
            lines += ["Requires-Dist: anyblock>=0.1,<1", "Requires-Dist: torch>=2.6"]
            entries = f"[anyblock.families]\nbench_{index} = anyblock_bench_{index}:Descriptor\n"
        else:
            lines += [f"Requires-Dist: package-{other}>=1.0; extra == 'all'" for other in range(40)]
            entries = f"[console_scripts]\npackage-{index} = package_{index}.cli:main\n"
        lines += ["", "A long description. " * 200]
        (info / "METADATA").write_text("\n".join(lines), encoding="utf-8")
        (info / "entry_points.txt").write_text(entries, encoding="utf-8")
        (info / "RECORD").write_text("", encoding="utf-8")


def timed(code: str, folder: Path | None, repeat: int) -> tuple[float, float]:
    """Return the least wall time and the least processor time, in seconds, of fresh interpreters that run `code`.

    The least of many is what the work itself takes; anything above it is what else the machine was doing.
    """
    environ = {key: value for key, value in os.environ.items() if not key.startswith("ANYBLOCK_")}
    if folder is not None:
        environ["PYTHONPATH"] = str(folder)
    wall, processor = [], []
    for _ in range(repeat):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([sys.executable, "-c", code], env=environ, check=True, stdout=subprocess.DEVNULL)
        wall.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(wall), min(processor)


def main() -> None:
    """Measure and print; exit with 1 when discovery takes longer than the limit or imports what it should not."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--distributions", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--limit", type=float, default=0.3, help="seconds above a bare interpreter, for discovery")
    parser.add_argument("--command-limit", type=float, default=0.5, help="the same for the whole command")
    options = parser.parse_args()
    real = sum(1 for _ in distributions())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        populate(folder, options.distributions)
        bare = timed("pass", folder, options.repeat)
        rows = [
            (f"discovery, the {real} distributions installed here", DISCOVER, None, options.limit),
            (f"discovery, {options.distributions} more", DISCOVER, folder, options.limit),
            (f"anyblock families --json, {options.distributions} more", COMMAND, folder, options.command_limit),
        ]
        times = [timed(code, place, options.repeat) for _, code, place, _ in rows]
        environ = {**os.environ, "PYTHONPATH": str(folder)}
        spied = subprocess.run([sys.executable, "-c", SPY], env=environ, check=True, capture_output=True, text=True)
    print(
        f"bare interpreter {bare[0]:.3f} s wall, {bare[1]:.3f} s processor; seconds above it, best of {options.repeat}:"
    )
    slow = []
    for (title, _, _, limit), (wall, processor) in zip(rows, times, strict=True):
        print(f"  {title:<50}{wall - bare[0]:.3f} wall  {processor - bare[1]:.3f} processor")
        if processor - bare[1] > limit:
            slow.append(f"too slow: {title}; the limit is {limit} s")
    if spied.stdout.strip() != "[]":
        sys.exit(f"discovery imported {spied.stdout.strip()}")
    if slow:
        sys.exit("\n".join(slow))


if __name__ == "__main__":
    main()
