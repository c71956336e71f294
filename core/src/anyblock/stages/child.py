"""Stage `child`: the solution becomes a checkpoint at the output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyblock.candidates.candidate import Candidate
from anyblock.checkpoint.atomic import atomic_directory, write_json_atomic
from anyblock.checkpoint.companions import carry, companions
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.checkpoint.transfer import Copier
from anyblock.checkpoint.writer import SubblockWriter
from anyblock.contract.storage_type import chosen_types
from anyblock.realize.realize import inputs_hash_of, realize
from anyblock.run.context import RunContext
from anyblock.run.run_folder import fingerprint_of, read_json
from anyblock.stages.adapt import Adapted

if TYPE_CHECKING:
    from anyblock.candidates.sources import Orders

STAGE: Final = "child"
_ROUNDED: Final = "child:rounded"


def run_child(
    context: RunContext,
    chosen: Sequence[Candidate],
    orders: Orders,
    adapted: Adapted,
    output: Path,
    *,
    outside: Mapping[str, str],
    overwrite: bool,
) -> SubblockCheckpoint:
    """Write the child, with storage types `outside` its halves, unless the one at `output` is what these inputs give.

    Raises:
        OutputExistsError: something else is at `output` and is not to be replaced.
    """
    storage = context.storage
    stage = context.run.stage(
        STAGE,
        {
            "teacher": context.teacher.checkpoint.fingerprint(),
            "chosen": [candidate.to_dict() for candidate in chosen],
            "orders": context.choices_key(orders),
            "repair": adapted.key,
            "stream": context.teacher.channels,
            **({} if storage is None else {"outside": dict(outside)}),
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
                storage=storage.stated(list(context.teacher.checkpoint.groups), chosen, outside) if storage else None,
                inputs_hash=stage.fingerprint,
                overwrite=overwrite,
                progress=context.progress,
            )
        child = SubblockCheckpoint.open(output)
        write_json_atomic(folder / "child.json", {"fingerprint": child.fingerprint()})
    return child


def run_rounded(context: RunContext, child: SubblockCheckpoint) -> SubblockCheckpoint:
    """Return the child as its file holds it, for whatever is measured in the end; the child itself where no types are searched."""
    storage, output = context.storage, context.run.path / "rounded"
    if storage is None:
        return child
    stage = context.run.stage(
        _ROUNDED, {"child": child.fingerprint(), "dtype": str(context.teacher.dtype), "types": dict(storage.key)}
    )
    kept = read_json(context.run.result(_ROUNDED, "child.json")) if stage.skipped else {"fingerprint": ""}
    if fingerprint_of(output) != kept["fingerprint"]:
        with stage.run() as folder:
            types = chosen_types(child.config, storage.plain.format)
            with atomic_directory(output, overwrite=True, sources=[child.path]) as work:
                with Copier({}, lambda _: None) as copier:
                    carry(companions(child.path), work, copier)
                writer = SubblockWriter(work, config=child.config, block_configs=child.block_configs)
                for group in child.groups:
                    rounded = storage.rounded(types[group], child.load(group))
                    writer.write(group, {name: tensor.to(context.teacher.dtype) for name, tensor in rounded.items()})
                writer.finish()
            write_json_atomic(folder / "child.json", {"fingerprint": SubblockCheckpoint.open(output).fingerprint()})
    return SubblockCheckpoint.open(output)
