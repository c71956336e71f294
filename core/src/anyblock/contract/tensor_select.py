"""Selecting and silencing units in a set of named tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from anyblock.contract.tensor_axis import Role, TensorAxis, UnitTensors, silenced, take
from anyblock.errors import CheckpointError

Tensors = Mapping[str, torch.Tensor]
Chosen = Mapping[Role, torch.Tensor]
"""The unit numbers to take, in order, for each role: `[units]`, or `[experts, units]` for experts' own channels."""


def select(
    axes: Iterable[TensorAxis], tensors: Tensors, units: int, chosen: Chosen, named: UnitTensors | None = None
) -> dict[str, torch.Tensor]:
    """Return all tensors, those on the axes with the chosen units only; views wherever the layout allows it.

    Raises:
        CheckpointError: a required tensor is missing, or its shape does not fit `units`.
    """
    result = dict(tensors)
    for axis in present(axes, tensors, units):
        result[axis.name] = _taken(result[axis.name], axis, units, chosen)
    return result if named is None else named.select(result, units, chosen["unit"])


def silence(axes: Iterable[TensorAxis], tensors: Tensors, units: int, removed: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return all tensors, the removed units silenced as the axes say.

    Raises:
        CheckpointError: a required tensor is missing, or its shape does not fit `units`.
    """
    result = dict(tensors)
    for axis in present(axes, tensors, units):
        result[axis.name] = silenced(result[axis.name], axis, units, removed)
    return result


def present(axes: Iterable[TensorAxis], tensors: Tensors, units: int) -> list[TensorAxis]:
    """Return the axes whose tensors are there and hold all units.

    Raises:
        CheckpointError: a required tensor is missing, or its shape does not fit `units`.
    """
    result = []
    for axis in axes:
        if axis.name in tensors:
            if axis.covers(tensors[axis.name], units):
                result.append(axis)
        elif axis.required:
            raise CheckpointError(
                f"there is no tensor {axis.name}",
                expected="the checkpoint names that the family's layer descriptor gives",
                hint="found: " + (", ".join(sorted(tensors)) or "no tensors"),
            )
    return result


def _taken(tensor: torch.Tensor, axis: TensorAxis, units: int, chosen: Chosen) -> torch.Tensor:
    if axis.row is None or chosen["unit"].dim() == 1:
        return take(tensor, axis.dim, axis.runs(units, chosen))
    if axis.row == "each":
        rows = [axis.runs(units, {"unit": row}) for row in chosen["unit"]]
        return torch.stack([take(part, axis.dim - 1, runs) for part, runs in zip(tensor, rows, strict=True)])
    return take(tensor, axis.dim, axis.runs(units, {"unit": chosen["unit"][axis.row]}))
