"""Stage `hidden-size`: one hidden size for the whole child, cut before any candidate is made.

All layers share the residual stream, so its width is not a choice of one subblock. The channels are ranked by the calibration
sweep that ranks everything else; the narrowed model is then the teacher, and the model as it was given the reference that
children are compared with. Unlike a candidate it is not a view: every tensor that touches the stream changes its shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyblock.checkpoint.atomic import atomic_directory, write_json_atomic
from anyblock.checkpoint.companions import carry, companions
from anyblock.checkpoint.config_view import config_view
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.checkpoint.transfer import Copier
from anyblock.checkpoint.writer import SubblockWriter
from anyblock.config.schema import RunConfig
from anyblock.contract.residual_pruning import HIDDEN_SIZE, ResidualPruning
from anyblock.errors import UnsupportedModelError
from anyblock.run.context import RunContext, RunModel
from anyblock.run.model_source import Source, run_multiples
from anyblock.run.run_folder import RunFolder, digest, fingerprint_of, read_json
from anyblock.stages.importance import channel_order

if TYPE_CHECKING:
    import torch

    from anyblock.calibration.sweep import HookPlan

STAGE = "hidden-size"
NARROWED = "narrowed"
"""The checkpoint's name in the run folder."""
_FILE = "narrowed.json"


def narrowed_source(config: RunConfig, source: Source) -> Source:
    """Return the teacher as far as config and shapes go; `source` itself where the run asks for no other hidden size.

    Raises:
        UnsupportedModelError: the family cannot change its hidden size.
        UsageError: the size is not legal.
    """
    settings = config.pruning.hidden_size
    if settings is None:
        return source
    multiples = run_multiples(config, source.family, settings)
    sizes = settings.absolute_sizes(int(source.text_config.hidden_size), multiples=multiples)
    if not sizes:
        return source
    stream = source.family.residual_stream()
    if stream is None:
        raise UnsupportedModelError(
            f"the adapter of {source.model_type} cannot change the hidden size",
            expected=f"a family whose `anyblock conformance` table lists {HIDDEN_SIZE}",
            hint=f"leave out pruning.{HIDDEN_SIZE}",
        )
    stream.check_size(sizes[0], source.text_config)
    view = config_view(_config(source.config.to_dict(), source, stream, sizes[0]))
    shapes = {group: stream.narrow(tensors, sizes[0]) for group, tensors in source.shapes.items()}
    return replace(source, config=view, shapes=shapes)


def narrow_teacher(context: RunContext, narrow: Source, plans: Sequence[HookPlan]) -> tuple[RunModel, RunModel]:
    """Return the teacher and the reference: one model unless the run asks for a smaller hidden size.

    The narrowed teacher is kept in the run folder.

    Args:
        context: the run, whose reference is the model as it was given.
        narrow: from `narrowed_source`.
        plans: the hooks of the finished importance stage.
    """
    given, run, stream = context.reference, context.run, context.family.residual_stream()
    if narrow is given.source or stream is None:
        return given, given
    order = channel_order(context, plans)
    channels = order[: int(narrow.text_config.hidden_size)].tolist()
    stage = run.stage(
        STAGE,
        {
            "teacher": given.checkpoint.fingerprint(),
            "channels": digest(channels),
            "adapter": f"{context.family.distribution} {context.family.version}",
        },
    )
    output = run.path / NARROWED
    if not stage.skipped or fingerprint_of(output) != read_json(run.result(STAGE, _FILE))["fingerprint"]:
        with stage.run() as folder:
            _write(given, stream, order, len(channels), output)
            fingerprint = SubblockCheckpoint.open(output).fingerprint()
            write_json_atomic(folder / _FILE, {"fingerprint": fingerprint, "channels": channels})
    return replace(given, source=narrow, checkpoint=SubblockCheckpoint.open(output), channels=tuple(channels)), given


def read_channels(run: RunFolder) -> tuple[int, ...]:
    """Return which channels of the reference the narrowed teacher of the finished stage keeps."""
    return tuple(read_json(run.result(STAGE, _FILE))["channels"])


def _config(raw: Mapping[str, Any], source: Source, stream: ResidualPruning, size: int) -> dict[str, Any]:
    """Return the content of a `config.json` of `source` with this hidden size of the language model."""
    text = source.text_config
    changes = stream.child_config(text, size)
    if text == source.config:
        return {**raw, **changes}
    key = next(key for key, value in raw.items() if isinstance(value, dict) and getattr(source.config, key) == text)
    return {**raw, key: {**raw[key], **changes}}


def _write(given: RunModel, stream: ResidualPruning, order: torch.Tensor, size: int, output: Path) -> None:
    whole = given.checkpoint
    with (
        atomic_directory(output, overwrite=True, sources=[whole.path]) as work,
        given.progress.task("Narrowing", total=len(whole.groups), unit="groups") as advance,
    ):
        with Copier({}, lambda _: None) as copier:
            carry(companions(whole.path), work, copier)
        config = _config(whole.config, given.source, stream, size)
        writer = SubblockWriter(work, config=config, block_configs=whole.block_configs)
        for group in whole.groups:
            tensors = whole.load(group)
            if stream.axes(tensors):
                writer.write(group, stream.narrow(stream.sort(tensors, order), size))
            else:
                writer.copy_group(whole, group)
            advance(1)
        writer.finish()
