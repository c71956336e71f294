"""Which device to use, waiting for it, and telling it from another."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any, Final

import torch

from anyblock.errors import UsageError


def resolve_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` is an accelerator when there is one, else the CPU.

    Raises:
        UsageError: there is no such device on this machine.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "auto":
        return accelerator or torch.device("cpu")
    device = torch.device(name)
    count = torch.accelerator.device_count() if accelerator is not None and accelerator.type == device.type else 0
    if device.type != "cpu" and (device.index or 0) >= count:
        raise UsageError(
            f"there is no device {name!r} on this machine",
            expected=f"cpu{f' or {accelerator}' if accelerator else ''}, or auto",
        )
    return device


def resolve_devices(name: str) -> tuple[torch.device, ...]:
    """Return the devices over which a run may spread layers, the first of which holds all else.

    Args:
        name: one device; or several of one kind, as in `cuda:0,cuda:1`; or `auto`, every accelerator there is.

    Raises:
        UsageError: there is no such device on this machine, or the devices are not distinct ones of one kind.
    """
    if name == "auto":
        first = resolve_device(name)
        count = 1 if first.type == "cpu" else torch.accelerator.device_count()
        return (first,) if count == 1 else tuple(torch.device(first.type, index) for index in range(count))
    devices = tuple(resolve_device(part) for part in name.split(","))
    if len(devices) > 1 and (len(set(devices)) < len(devices) or any(d.index is None for d in devices)):
        raise UsageError(f"device is {name!r}", expected="distinct devices by their numbers, as in cuda:0,cuda:1")
    if len({device.type for device in devices}) > 1:
        raise UsageError(f"device is {name!r}", expected="devices of one kind")
    return devices


def compute_dtype(name: str, stored: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the dtype to compute in.

    Args:
        name: a dtype's name, or `auto`: the checkpoint's own, except that a CPU without instructions for bfloat16 or
            float16 computes in float32, which is then several times faster.
        stored: the checkpoint's own dtype.
        device: where the model runs.

    Raises:
        UsageError: torch has no such dtype.
    """
    chosen = as_dtype(name)
    if chosen is not None:
        return chosen
    halves = {
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported,
    }
    if device.type == "cpu" and stored in halves and not halves[stored]():
        return torch.float32
    return stored


def as_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """Return the dtype of this name; None for None and for `auto`, which mean the checkpoint's own.

    Raises:
        UsageError: torch has no such dtype.
    """
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return None
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype):
        raise UsageError(f"unknown dtype {dtype!r}", expected="float32, bfloat16, float16 or auto")
    return found


def stored_dtype(config: Any) -> torch.dtype:
    """Return the dtype that a Hugging Face config states for its weights; float32 when it states none."""
    stated = getattr(config, "dtype", None)
    if stated is None and hasattr(config, "get_text_config"):
        stated = getattr(config.get_text_config(), "dtype", None)
    return as_dtype(stated) or torch.float32


_CPU_INFO: Final = Path("/proc/cpuinfo")


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its queue; on the CPU there is none."""
    if device.type not in ("cpu", "meta"):
        torch.accelerator.synchronize(device)


def describe_device(device: torch.device) -> str:
    """Return the device's make, and for the CPU the number of threads: times of different ones cannot be mixed."""
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
