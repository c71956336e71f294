"""Which device to use."""

from __future__ import annotations

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
