"""Free space for a run, estimated before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from anyblock.candidates.storage import BYTES
from anyblock.checkpoint.space import existing_parent, require_space
from anyblock.checkpoint.subblocks import is_subblock_checkpoint
from anyblock.config.budget import Bound
from anyblock.run.model_source import Shapes, Source
from anyblock.stages.candidates import CostedCandidates
from anyblock.stages.narrow_teacher import NARROWED
from anyblock.stages.search import resolve_budget
from anyblock.stages.teacher import CONVERTED

_SLACK: Final = 16 << 20
"""For scores, reports and tokenizer files, in bytes."""


def require_run_space(
    run: Path, output: Path, source: Source, narrow: Source, bounds: Sequence[Bound], costed: CostedCandidates
) -> None:
    """Check that there is room for what a run still has to write: the teacher's copy, a narrowed one, and the child.

    The child is taken to have the largest share of the model's parameters that the budgets allow. Hidden states that are
    spooled for want of memory are not counted.

    Args:
        run: the run folder.
        output: where the child will be.
        source: the model as it was given.
        narrow: the teacher; `source` itself unless that has a smaller hidden size.
        bounds: the budgets of the search.
        costed: the candidates; those with storage types are written once more, rounded.

    Raises:
        ExecutionError: there is too little; says how much is free and how much is needed.
    """
    kept = 0
    if not is_subblock_checkpoint(source.path) and not (run / CONVERTED).exists():
        kept += _bytes(source.shapes)
    if narrow is not source and not (run / NARROWED).exists():
        kept += _bytes(narrow.shapes)
    reference = costed.reference
    limits = [resolve_budget(bound, reference).upper for bound in bounds if bound.cost == "params"]
    share = min([1.0, *(limit / reference["params"] for limit in limits if limit is not None)])
    child = 0 if output.exists() else int(share * _bytes(source.shapes))
    kept += child if BYTES in reference else 0
    if existing_parent(run).stat().st_dev == existing_parent(output).stat().st_dev:
        require_space(output, kept + child + _SLACK if kept + child else 0)
    else:
        require_space(run, kept + _SLACK if kept else 0)
        require_space(output, child)


def _bytes(shapes: Shapes) -> int:
    return sum(tensor.nbytes for tensors in shapes.values() for tensor in tensors.values())
