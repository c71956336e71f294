"""torch and transformers at work: whether they import, and on which device; in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Final

from anyblock.doctor.finding import Examined, pip

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
