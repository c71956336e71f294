"""Stage `hidden-size`: one hidden size for the whole child, cut before any candidate is made.

All layers share the residual stream, so its width is no choice of one subblock. The channels are ranked by the calibration
sweep that ranks everything else; the narrowed model then takes the teacher's place, and children are still compared with
the model as it was given. Unlike candidates it is no view: every tensor that touches the stream changes its shape.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyblock.checkpoint.atomic import atomic_directory, write_json_atomic
from anyblock.checkpoint.companions import carry, companions
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.checkpoint.transfer import Copier
from anyblock.checkpoint.writer import SubblockWriter
from anyblock.pipeline.context import RunContext
from anyblock.pipeline.model_source import Source
from anyblock.pipeline.narrow import resized, stream_mixin
from anyblock.pipeline.run_folder import digest, fingerprint_of, read_json

if TYPE_CHECKING:
    import torch

STAGE: Final = "hidden-size"
NARROWED = "narrowed"
"""The checkpoint's name in the run folder."""
_FILE = "narrowed.json"


def run_hidden_size(context: RunContext, narrow: Source, order: torch.Tensor) -> RunContext:
    """Return the run with the narrowed model in the teacher's place; it is kept in the run folder.

    Args:
        context: the run with the model as it was given.
        narrow: from `narrowed_source`.
        order: the channels of the residual stream, most important first, int64 `[hidden]`.
    """
    text_config = narrow.text_config
    stream = order[: int(text_config.hidden_size)]
    stage = context.run.stage(
        STAGE,
        {
            "teacher": context.teacher.fingerprint(),
            "channels": digest(stream.tolist()),
            "adapter": f"{context.family.distribution} {context.family.version}",
        },
    )
    output = context.run.path / NARROWED
    if not stage.skipped or fingerprint_of(output) != read_json(context.run.result(STAGE, _FILE))["fingerprint"]:
        with stage.run() as folder:
            _write(context, narrow, order, output)
            fingerprint = SubblockCheckpoint.open(output).fingerprint()
            write_json_atomic(folder / _FILE, {"fingerprint": fingerprint, "channels": stream.tolist()})
    return replace(
        context,
        source=narrow,
        teacher=SubblockCheckpoint.open(output),
        before=context,
        stream=tuple(stream.tolist()),
        linear=context.linear.within(stream.tolist()),
    )


def _write(context: RunContext, narrow: Source, order: torch.Tensor, output: Path) -> None:
    teacher, mixin = context.teacher, stream_mixin(context.family)
    block, text_config = teacher.block_configs[0], narrow.text_config
    with (
        atomic_directory(output, overwrite=True, sources=[teacher.path]) as work,
        context.progress.task("Narrowing", total=len(teacher.groups), unit="groups") as advance,
    ):
        with Copier({}, lambda _: None) as copier:
            carry(companions(teacher.path), work, copier)
        changes = mixin.resize_config(context.source.text_config, int(text_config.hidden_size))
        config = resized(teacher.config, context.source, changes)
        writer = SubblockWriter(work, config=config, block_configs=teacher.block_configs)
        for group in teacher.groups:
            tensors = teacher.load(group)
            if mixin.axes_of(tensors):
                ordered = mixin.sort(0, tensors, block, order, context.text_config)
                writer.write(group, mixin.narrow(0, ordered, block, block, text_config))
            else:
                writer.copy_group(teacher, group)
            advance(1)
        writer.finish()
