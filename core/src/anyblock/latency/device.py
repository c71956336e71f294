"""The device on which time is taken: waiting for it, and telling it from another."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch

_CPU_INFO: Final = Path("/proc/cpuinfo")


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its queue; on the CPU there is none."""
    if device.type not in ("cpu", "meta"):
        import torch

        torch.accelerator.synchronize(device)


def describe_device(device: torch.device) -> str:
    """Return the device's make, and for the CPU the number of threads: times of different ones cannot be mixed."""
    import torch

    if device.type == "cpu":
        return f"{_cpu_model()}, {os.cpu_count()} processors, {torch.get_num_threads()} threads"
    module = getattr(torch, device.type, None)
    name = getattr(module, "get_device_name", None)
    return str(name(device)) if name is not None else str(device)


def _cpu_model() -> str:
    # `platform.processor` is empty or just the architecture on Linux.
    if _CPU_INFO.is_file():
        for line in _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
