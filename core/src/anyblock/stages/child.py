"""Stage `child`: the solution becomes a checkpoint at the output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyblock.candidates.candidate import Candidate
from anyblock.checkpoint.atomic import write_json_atomic
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.realize.realize import inputs_hash_of, realize
from anyblock.run.context import RunContext
from anyblock.run.run_folder import fingerprint_of, read_json
from anyblock.stages.adapt import Adapted

if TYPE_CHECKING:
    from anyblock.candidates.sources import Orders

STAGE: Final = "child"


def run_child(
    context: RunContext,
    chosen: Sequence[Candidate],
    orders: Orders,
    adapted: Adapted,
    output: Path,
    *,
    overwrite: bool,
) -> SubblockCheckpoint:
    """Write the child unless the one at `output` is what these inputs give.

    Raises:
        OutputExistsError: something else is at `output` and is not to be replaced.
    """
    stage = context.run.stage(
        STAGE,
        {
            "teacher": context.teacher.checkpoint.fingerprint(),
            "chosen": [candidate.to_dict() for candidate in chosen],
            "orders": context.choices_key(orders),
            "repair": adapted.key,
            "stream": context.teacher.channels,
        },
    )
    if stage.skipped and fingerprint_of(output) == read_json(context.run.result(STAGE, "child.json"))["fingerprint"]:
        return SubblockCheckpoint.open(output)
    with stage.run() as folder:
        # A run that was killed right after its child appeared finds it complete: children appear whole or not at all.
        if inputs_hash_of(output) != stage.fingerprint or fingerprint_of(output) is None:
            realize(
                context.teacher.checkpoint,
                chosen,
                context.weights(orders),
                output,
                repaired=adapted.tensors,
                channels=context.teacher.channels,
                inputs_hash=stage.fingerprint,
                overwrite=overwrite,
                progress=context.progress,
            )
        child = SubblockCheckpoint.open(output)
        write_json_atomic(folder / "child.json", {"fingerprint": child.fingerprint()})
    return child
