"""Which part of the calibration text judges instead of taking part: the same for every stage that fits or trains."""

from __future__ import annotations

import torch

from anyblock.calibration.batches import Batches
from anyblock.errors import UsageError
from anyblock.importance.statistics import HELD_OUT_EVERY


def held_out_every(batches: Batches) -> int:
    """Return the distance between held-out batches: batch `i` is held out where `i % distance == distance - 1`.

    Raises:
        UsageError: there are fewer than two batches, so that nothing could be held out.
    """
    if len(batches) < 2:
        raise UsageError(
            f"{len(batches)} calibration batch is too few to fit the child to",
            expected="at least two batches: one to fit on, one to judge by",
            hint="give more text, lower data.batch_size, or set pruning.repair.method=none and leave distillation off",
        )
    return min(HELD_OUT_EVERY, len(batches))


def held_out_split(batches: Batches) -> tuple[Batches, Batches]:
    """Return the part to fit on and the part to judge by, in batches of the same size.

    Raises:
        UsageError: see `held_out_every`.
    """
    every = held_out_every(batches)
    parts: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for index, ids in enumerate(batches):
        parts[index % every == every - 1].append(ids)
    fit, judge = (Batches(torch.cat(part), batches.batch_size) for part in parts)
    return fit, judge
