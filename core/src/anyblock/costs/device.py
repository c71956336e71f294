"""Waiting for a device, so that time can be taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its queue; on the CPU there is none."""
    if device.type not in ("cpu", "meta"):
        import torch

        torch.accelerator.synchronize(device)
