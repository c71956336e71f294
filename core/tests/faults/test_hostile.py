"""Hostile and broken checkpoints: refused with a message or used, never a crash, a hang, much memory, or a look elsewhere."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_harness.calls import compress_arguments
from fault_harness.client import Outcome, Warm
from fault_harness.mutations import Mutation, all_mutations

MUTATIONS = all_mutations()
ENTRIES = ("inspect", "convert", "load", "compress")
ALLOWANCE = 512 << 20
"""Address space beyond that of the warm process: the largest file of the corpus (40 MB) twelve times over."""
OWN = ("/dev/null", "/proc/self/clear_refs")
"""Places outside that may be written: the second is not a file, and sets back the kernel's record of the process's own memory."""
ELSEWHERE = re.compile(r"^(/etc/(passwd|shadow)|/dev/zero|/proc/self/mem)$")


def test_the_corpus_is_large() -> None:
    assert len(MUTATIONS) >= 400


def attempt(warm: Warm, root: Path, model: Path, text: Path, entry: str) -> Outcome:
    request = {"limits": {"AS": warm.size + ALLOWANCE}, "spy": True, "timeout": 120}
    if entry == "load":
        return warm.run(call="load", arguments={"path": model}, **request)
    argv = {
        "inspect": ["inspect", model],
        "convert": ["convert", model, root / "out"],
        "compress": compress_arguments(model, root / "child", text),
    }
    return warm.run(argv[entry], **request)


def faults_of(done: Outcome, root: Path, model: Path) -> list[str]:
    found = []
    if done.crashed:
        found.append(f"crashed ({done.code}): {done.stderr.strip()[-300:]}")
    if done.hung or done.processor > 10:  # of the processor: a loaded machine is slow
        found.append(f"took {done.processor:.0f} s of the processor in {done.seconds:.0f} s")
    if "out of memory" in done.stderr or "MemoryError" in done.stderr:
        found.append("allocated without bound")
    for path, writes in done.told:
        if ELSEWHERE.search(path) or path.startswith("<"):
            found.append(f"reached {path}")
        elif writes and not Path(path).is_relative_to(root) and path not in OWN:
            found.append(f"wrote {path}")
        elif writes and Path(path).is_relative_to(model):
            found.append(f"wrote into the model: {path}")
    if (root / "ran").exists():
        found.append("ran the checkpoint's code")
    if done.code not in (0, 1, 2):
        found.append(f"exit code {done.code}")
    if done.code == 2 and any((root / name).exists() for name in ("out", "child")):
        found.append("was refused and wrote its output")
    return found


def run_corpus(
    warm: Warm, tmp_path: Path, model: Path, text: Path, chosen: dict[str, Mutation], entries: tuple[str, ...]
) -> tuple[list[str], Counter[int]]:
    faults, codes = [], Counter[int]()
    root = tmp_path / "root"
    for number, (name, mutation) in enumerate(chosen.items()):
        for entry in entries if len(entries) == len(ENTRIES) else entries[number % len(entries) :][:1]:
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir()
            shutil.copytree(model, root / "model")
            mutation(root / "model")
            done = attempt(warm, root, root / "model", text, entry)
            codes[done.code] += 1
            faults += [f"{entry}, {name}: {fault}" for fault in faults_of(done, root, root / "model")]
    return faults, codes


def test_some_of_the_corpus(
    warm: Warm, tmp_path: Path, model: Path, text: Path, reached: Callable[[str], None]
) -> None:
    chosen = dict(list(MUTATIONS.items())[::9])
    faults, codes = run_corpus(warm, tmp_path, model, text, chosen, ("inspect", "convert", "load"))
    assert not faults, "\n".join(faults)
    reached(f"hostile: {codes.total()} runs of {len(chosen)} mutations; exit codes {dict(codes)}")


@pytest.mark.faults
def test_the_whole_corpus(warm: Warm, tmp_path: Path, model: Path, text: Path, reached: Callable[[str], None]) -> None:
    faults, codes = run_corpus(warm, tmp_path, model, text, MUTATIONS, ENTRIES)
    assert not faults, f"{len(faults)} faults\n" + "\n".join(faults)
    reached(f"hostile: {codes.total()} runs of {len(MUTATIONS)} mutations; exit codes {dict(codes)}")
