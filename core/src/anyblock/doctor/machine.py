"""What the machine has, where Hugging Face keeps downloads, and whether torch and transformers work, in a process of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from anyblock.doctor.finding import Examined, pip
from anyblock.modeling.system_memory import memory

_SCARCE: Final = 1 << 30
_TIMEOUT: Final = 180
# A broken binary may abort the interpreter, so the question is put to another one.
_PROBE: Final = """
import json, sys
found = {}
try:
    import torch
    found["torch"] = torch.__version__
    found["threads"] = torch.get_num_threads()
    found["cuda"] = [
        {"name": torch.cuda.get_device_name(i), "memory": torch.cuda.get_device_properties(i).total_memory}
        for i in range(torch.cuda.device_count())
    ] if torch.cuda.is_available() else []
    found["cuda_built"] = torch.version.cuda
    found["mps"] = torch.backends.mps.is_available()
except BaseException as error:
    found["torch_error"] = f"{type(error).__name__}: {error}"
else:
    try:
        from transformers import AutoConfig, AutoModelForCausalLM
    except BaseException as error:
        found["transformers_error"] = f"{type(error).__name__}: {error}"
sys.stdout.write("\\n" + json.dumps(found))
"""


def examine_machine() -> Examined:
    """Look at memory, threads and disk; sizes are in bytes. Less than 1 GiB of free disk is a fault."""
    section = Examined("Machine")
    total, available = memory()
    section.facts["memory_total"] = total
    section.facts["memory_available"] = available
    section.facts["cpu_threads"] = cpu_threads()
    section.facts["omp_num_threads"] = os.environ.get("OMP_NUM_THREADS")
    for key, folder in (("disk_free_here", Path.cwd()), ("disk_free_temporary", Path(tempfile.gettempdir()))):
        section.facts[key] = free = shutil.disk_usage(folder).free
        if free < _SCARCE:
            section.wrong(f"only {free / _SCARCE:.2f} GiB are free in {folder}", f"du -xh {folder} | sort -h | tail")
    return section


def cpu_threads() -> int:
    """Return how many hardware threads this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def examine_hub() -> Examined:
    """Look at the cache folder and the offline switches, as `huggingface_hub` itself reads them."""
    section = Examined("Hugging Face")
    try:
        from huggingface_hub import constants
    except ImportError as error:
        section.wrong(
            f"huggingface_hub cannot be imported: {error}", pip("install", "--force-reinstall", "huggingface_hub")
        )
        return section
    cache = Path(constants.HF_HUB_CACHE)
    section.facts["cache"] = str(cache)
    section.facts["cached_models"] = sum(1 for _ in cache.glob("models--*")) if cache.is_dir() else 0
    section.facts["offline"] = bool(constants.HF_HUB_OFFLINE)
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    section.facts["disk_free_cache"] = shutil.disk_usage(existing).free
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        section.wrong(f"the cache {cache} cannot be written to", 'export HF_HOME="$HOME/.cache/huggingface"')
    return section


def examine_compute() -> Examined:
    """Import torch and transformers in a separate process, and list the devices torch sees."""
    section = Examined("Compute")
    found = _probe()
    for package in ("torch", "transformers"):
        error = found.get(f"{package}_error")
        if error:
            section.wrong(f"{package} cannot be imported: {error}", pip("install", "--force-reinstall", package))
    cuda = found.get("cuda") or []
    section.facts["device"] = "cuda" if cuda else "mps" if found.get("mps") else "cpu"
    section.facts["cuda"] = cuda
    section.facts["cuda_built"] = found.get("cuda_built")
    section.facts["mps"] = bool(found.get("mps"))
    section.facts["torch_threads"] = found.get("threads")
    return section


def _probe() -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return {"torch_error": f"no answer within {_TIMEOUT} seconds"}
    last = done.stdout.rpartition("\n")[2]
    if done.returncode or not last.startswith("{"):
        complaint = done.stderr.strip().rpartition("\n")[2]
        return {"torch_error": f"the interpreter ended with {done.returncode} {complaint}".rstrip()}
    found: dict[str, Any] = json.loads(last)
    return found
