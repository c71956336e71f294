"""Where the units of an axis (channels, heads, experts) lie in checkpoint tensors, and the one way to select them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

import torch

from anyblock.errors import CheckpointError

Role = Literal["unit", "query", "stay"]
"""`unit` shrinks with the axis, `query` follows it (query heads, which may keep their number), `stay` does not move."""
_FEW: Final = 8  # up to this many contiguous runs are concatenated, more are gathered by index


class Silence(Enum):
    """What happens to the entries of a unit that is silenced but not taken out."""

    KEEP = "keep"
    """Nothing: another tensor silences the unit."""
    ZERO = "zero"
    """They become zero."""
    NEVER = "never"
    """They become minus infinity, so that a router never chooses the unit."""
    NORM = "norm"
    """They become zero, and all others shrink by `sqrt(kept / all)`: in the child an RMS norm over the units divides by
    the mean over fewer of them."""


@dataclass(frozen=True)
class Segment:
    """A stretch of one tensor dimension.

    Args:
        width: how many entries each unit has; for `stay`, the length of the whole stretch.
        role: see `Role`.
        silence: what `mask` does to a removed unit here.
    """

    width: int = 1
    role: Role = "unit"
    silence: Silence = Silence.KEEP

    def length(self, units: int) -> int:
        """Return how long the stretch is with this many units."""
        return self.width if self.role == "stay" else self.width * units


@dataclass(frozen=True)
class TensorAxis:
    """How the units lie in one tensor.

    Args:
        name: the tensor's checkpoint name.
        dim: the dimension along which the units lie.
        segments: the stretches of that dimension, in order; `[gate | up]` rows are two `unit` segments, an interleaved
            pair is one of width 2, a head is one of width `head_dim`.
        required: whether the tensor has to be there; biases are not.
        only_if_full: leave the tensor alone when its length is not that of all units (a norm over one head's width).
        row: which row of a two-dimensional order holds here, for one expert's own channels; `each` when dimension 0
            runs over the rows.
    """

    name: str
    dim: int
    segments: tuple[Segment, ...] = (Segment(),)
    required: bool = False
    only_if_full: bool = False
    row: int | Literal["each"] | None = None

    def covers(self, tensor: torch.Tensor, units: int) -> bool:
        """Return whether the units lie in this tensor.

        Raises:
            CheckpointError: the tensor's dimension has another length than the units need.
        """
        wanted = sum(segment.length(units) for segment in self.segments)
        if self.dim < tensor.dim() and tensor.shape[self.dim] == wanted:
            return True
        if self.only_if_full:
            return False
        raise CheckpointError(
            f"tensor {self.name} has the shape {list(tensor.shape)}",
            expected=f"{wanted} entries in dimension {self.dim}, for {units} units",
        )

    def runs(self, units: int, chosen: Mapping[Role, torch.Tensor]) -> list[tuple[int, int]]:
        """Return the `(start, length)` runs of entries that hold the chosen units, in their order.

        Args:
            units: how many units the tensor has now.
            chosen: the unit numbers to take, in order, for each role.
        """
        result: list[tuple[int, int]] = []
        for start, segment in self.placed(units):
            if segment.role == "stay":
                _append(result, start, segment.width)
                continue
            for first, count in _stretches(chosen[segment.role]):
                _append(result, start + first * segment.width, count * segment.width)
        return result

    def placed(self, units: int) -> Iterator[tuple[int, Segment]]:
        """Yield every segment with the entry at which it starts."""
        start = 0
        for segment in self.segments:
            yield start, segment
            start += segment.length(units)


@dataclass(frozen=True)
class UnitTensors:
    """Units that are tensors of their own, with the unit's number in the name.

    Args:
        prefix: the beginning of a unit's tensor names, with `{expert_idx}`; the layer's index is filled in.
        required: the tensors below the prefix that every unit has to have.
    """

    prefix: str
    required: tuple[str, ...]

    def select(self, tensors: Mapping[str, torch.Tensor], units: int, chosen: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return all tensors, those of the chosen units numbered by their place in `chosen`, those of others left out.

        Raises:
            CheckpointError: a required tensor is missing.
        """
        result = dict(tensors)
        parts: dict[str, dict[str, torch.Tensor]] = {str(unit): {} for unit in range(units)}
        before, _, after = self.prefix.partition("{expert_idx}")
        for name in tensors:
            unit, _, part = name.removeprefix(before).partition(after)
            if unit in parts and name.startswith(f"{before}{unit}{after}"):
                parts[unit][part] = result.pop(name)
        for unit, found in parts.items():
            if absent := [part for part in self.required if part not in found]:
                wanted = f"{', '.join(self.required)} of {units} experts"
                raise CheckpointError(f"there is no tensor {before}{unit}{after}{absent[0]}", expected=wanted)
        for place, number in enumerate(chosen.tolist()):
            result |= {f"{before}{place}{after}{part}": tensor for part, tensor in parts[str(number)].items()}
        return result


def _stretches(chosen: torch.Tensor) -> list[tuple[int, int]]:
    """Return `(first, count)` of each stretch of consecutive units, in order."""
    units = chosen.tolist()
    ends = [*((chosen.diff() != 1).nonzero()[:, 0] + 1).tolist(), len(units)]
    return [(units[begin], end - begin) for begin, end in zip([0, *ends[:-1]], ends, strict=True) if end]


def _append(runs: list[tuple[int, int]], start: int, length: int) -> None:
    if runs and sum(runs[-1]) == start:
        runs[-1] = (runs[-1][0], runs[-1][1] + length)
    else:
        runs.append((start, length))


def take(tensor: torch.Tensor, dim: int, runs: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Return these runs of entries along `dim`; the tensor or a view of it where one run suffices."""
    if len(runs) == 1:
        start, length = runs[0]
        return tensor if length == tensor.shape[dim] else tensor.narrow(dim, start, length)
    if len(runs) <= _FEW:
        return torch.cat([tensor.narrow(dim, start, length) for start, length in runs], dim=dim)
    return tensor.index_select(dim, entries(runs).to(tensor.device))


def entries(runs: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Return the entries of these runs one by one, int64."""
    starts, lengths = torch.tensor(runs, dtype=torch.int64).reshape(-1, 2).unbind(1)
    within = torch.arange(int(lengths.sum())) - torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)
    return torch.repeat_interleave(starts, lengths) + within


def silenced(tensor: torch.Tensor, axis: TensorAxis, units: int, removed: torch.Tensor) -> torch.Tensor:
    """Return the tensor with the `removed` units silenced as the segments say: a copy, unless nothing is to be done."""
    result = tensor
    for start, segment in axis.placed(units):
        if segment.silence is Silence.KEEP or segment.role == "stay" or not removed.numel():
            continue
        if result is tensor:
            result = tensor.clone()
        if segment.silence is Silence.NORM:
            result.narrow(axis.dim, start, segment.length(units)).mul_((1 - len(removed) / units) ** 0.5)
        each = (removed.unsqueeze(1) * segment.width + torch.arange(segment.width)).reshape(-1) + start
        value = float("-inf") if segment.silence is Silence.NEVER else 0.0
        result.index_fill_(axis.dim, each.to(result.device), value)
    return result
