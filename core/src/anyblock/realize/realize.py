"""`realize`: a choice of candidates becomes a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyblock.candidates.candidate import NO_OP, TEACHER, Candidate, child_blocks
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.checkpoint.atomic import atomic_directory
from anyblock.checkpoint.companions import carry, companions
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.checkpoint.transfer import Copier
from anyblock.checkpoint.writer import SubblockWriter
from anyblock.contract.residual_pruning import HIDDEN_SIZE
from anyblock.contract.storage_type import STORAGE
from anyblock.progress import SILENT, Progress

if TYPE_CHECKING:
    import torch

RECORD: Final = "anyblock.json"
"""File of a child that says where it comes from, and which of the teacher's units each pruned subblock keeps, in order.

Under `model` are the channels of the residual stream, where the hidden size was cut."""


def realize(
    teacher: SubblockCheckpoint,
    chosen: Sequence[Candidate],
    weights: CandidateWeights,
    output: Path,
    *,
    repaired: Mapping[str, torch.Tensor] | None = None,
    channels: Sequence[int] | None = None,
    storage: Mapping[str, Any] | None = None,
    inputs_hash: str = "",
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> Path:
    """Write the child as a subblock checkpoint, unrounded; it appears at `output` only when it is complete.

    Unchanged subblocks are copied by byte ranges. Tokenizer, generation config and custom code come along.

    Args:
        teacher: the teacher.
        chosen: candidates, at most one a subblock.
        weights: the candidates' weights.
        output: the child's directory.
        repaired: tensors by checkpoint name that replace those of the candidates, in the same shapes.
        channels: where `teacher` itself is narrower than the model that was given: the channels of the residual stream that
            it keeps, in its order, for the record.
        storage: the entry of the child's configuration that says in which types a file of it stores its numbers.
        inputs_hash: a hash of all inputs, kept in the child's record, by which a run knows a child that it wrote.
        overwrite: replace what is at `output`.
        progress: where to report; the unit is groups.

    Raises:
        OutputExistsError: something is at `output` and is not to be replaced.
    """
    by_group = {candidate.group: candidate.unrounded for candidate in chosen}
    blocks = child_blocks(teacher.block_configs, chosen)
    repaired = repaired or {}
    kept: dict[str, Any] = {} if channels is None else {"model": {"kind": HIDDEN_SIZE, "units": list(channels)}}
    with (
        atomic_directory(output, overwrite=overwrite, sources=[teacher.path]) as work,
        progress.task("Writing the child", total=len(teacher.groups), unit="groups") as advance,
    ):
        with Copier({}, lambda _: None) as copier:
            carry(companions(teacher.path), work, copier)
        config = {key: value for key, value in teacher.config.items() if key != STORAGE} | dict(storage or {})
        writer = SubblockWriter(work, config=config, block_configs=blocks)
        for group in teacher.groups:
            candidate = by_group.get(group)
            own = candidate is None or candidate.kind == TEACHER
            if own and not repaired.keys() & set(teacher.groups[group]):
                writer.copy_group(teacher, group)
            elif candidate is None or candidate.kind != NO_OP:
                tensors = teacher.load(group) if candidate is None else weights.subblock(candidate)
                writer.write(group, {name: repaired.get(name, tensor) for name, tensor in tensors.items()})
                if candidate is not None and (units := weights.of(candidate).kept_units(candidate)) is not None:
                    kept[group] = {"kind": candidate.kind, "units": units}
            advance(1)
        record = {"origin": inputs_hash, "kept_units": kept}
        (work / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        writer.finish()
    return output


def inputs_hash_of(path: Path) -> str | None:
    """Return the hash of inputs in a child's record; None when there is no such child."""
    try:
        record = json.loads((path / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    origin = record.get("origin") if isinstance(record, dict) else None
    return origin if isinstance(origin, str) else None
