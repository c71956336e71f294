"""Converting a Hugging Face checkpoint into a subblock checkpoint."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyblock.checkpoint.atomic import atomic_directory, check_target, scratch_directory
from anyblock.checkpoint.companions import carry, companions, sizes
from anyblock.checkpoint.config import read_config
from anyblock.checkpoint.files import reading
from anyblock.checkpoint.hub import origin_of, resolve_model
from anyblock.checkpoint.source_checkpoint import SourceCheckpoint
from anyblock.checkpoint.space import require_space
from anyblock.checkpoint.subblocks import SubblockCheckpoint, is_subblock_checkpoint
from anyblock.checkpoint.sync import BackgroundSync
from anyblock.checkpoint.transfer import Copier
from anyblock.checkpoint.writer import SubblockWriter
from anyblock.contract.trust import runs_code
from anyblock.conversion.compute import compute_parts
from anyblock.conversion.plan import ConversionPlan, plan_conversion
from anyblock.errors import UsageError
from anyblock.progress import SILENT, Advance, Progress

if TYPE_CHECKING:
    from anyblock.family import ModelFamily

_SLACK = 16 << 20


@runs_code
def convert_model(
    input_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    converter: str | None = None,
    *,
    overwrite: bool = False,
    trust_remote_code: bool = False,
    revision: str | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Convert a Hugging Face checkpoint into a subblock checkpoint and return its path.

    Tensors that keep their storage are copied from file to file by the kernel, so memory stays flat and the speed is
    that of `cp`. The output appears when it is complete, or not at all.

    Args:
        input_dir: a Hugging Face directory, a subblock checkpoint, or a hub id.
        output_dir: where the result is to be.
        converter: the family's name; None finds it out from `config.json`.
        overwrite: replace an existing output.
        trust_remote_code: run the code that comes with the checkpoint.
        revision: branch, tag or commit of a hub id. The commit is recorded in the index of the output.
        progress: receives the bytes as they are written.

    Raises:
        InputError: the input cannot be used, or the output exists (`OutputExistsError`); the message names file and
            tensor.
        UnsupportedModelError: no installed adapter serves the model.
        ExecutionError: the output cannot be written.
    """
    from anyblock.family import get_family

    check_target(output_dir, overwrite=overwrite)
    folder = resolve_model(os.fspath(input_dir), revision=revision)
    if origin := origin_of(folder):
        progress.note(f"{input_dir} is {origin}")
    config = read_config(folder)
    model_type = config["model_type"]
    if converter is not None and converter != model_type:
        raise UsageError(
            f"the converter {converter!r} was asked for, and {folder} is a {model_type!r} model",
            expected=f"converter={model_type!r}, or none to find it out",
        )
    return convert_with(
        get_family(model_type), folder, output_dir, config=config, overwrite=overwrite, progress=progress
    )


def convert_with(
    family: ModelFamily,
    folder: Path,
    output_dir: str | os.PathLike[str],
    *,
    config: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> Path:
    """Convert the checkpoint in a directory with a given family; see `convert_model`.

    `config` is the content of its `config.json`; None reads it.
    """
    target = check_target(output_dir, overwrite=overwrite, sources=[folder])
    config = read_config(folder) if config is None else config
    source = SourceCheckpoint.open(folder)
    plan = plan_conversion(family, source, config)
    for note in plan.notes:
        progress.note(note)
    with reading(folder):
        files = companions(folder)
        total = source.total_size + sizes(files)
    require_space(target, total + _SLACK)
    with (
        progress.task(f"converting {folder.name}", total=total, unit="bytes") as advance,
        atomic_directory(target, overwrite=overwrite, sources=[folder]) as work,
        BackgroundSync() as disk,
    ):
        with Copier({}, advance) as copier:
            carry(files, work, copier)
        writer = SubblockWriter(
            work, config=plan.config, block_configs=plan.block_configs, advance=advance, written=disk.submit
        )
        _write_groups(plan, source, writer, advance)
        writer.finish(source=origin_of(folder))
    return Path(output_dir)


@contextmanager
def as_subblocks(
    child: str | os.PathLike[str], scratch: Path, family: ModelFamily | None = None
) -> Iterator[SubblockCheckpoint]:
    """Open a child as a subblock checkpoint, also one that `save_pretrained` wrote.

    Args:
        child: its directory.
        scratch: where one in another layout is converted to; gone when the block ends.
        family: the adapter to convert it with; None finds the installed one.

    Raises:
        CheckpointError: the files are damaged, or the directory holds two models.
        ConfigError: `config.json` is unusable, or is not that of a child.
        ExecutionError: there is too little space for the conversion.
    """
    from anyblock.family import get_family

    folder = Path(child)
    config = read_config(folder)
    if "block_configs" not in config or is_subblock_checkpoint(folder):
        yield SubblockCheckpoint.open(folder)
        return
    with scratch_directory(scratch) as work:
        output = work / (folder.resolve().name or "child")
        convert_with(family or get_family(config["model_type"]), folder, output)
        yield SubblockCheckpoint.open(output)


def _write_groups(
    plan: ConversionPlan,
    source: SourceCheckpoint,
    writer: SubblockWriter,
    advance: Advance,
) -> None:
    stamps = {file: header.stamp for file, header in source.headers.items()}
    copied = {group: names for group, names in plan.groups.items() if plan.computed.keys().isdisjoint(names)}
    writer.copy_parts({group: {name: plan.stored[name] for name in names} for group, names in copied.items()}, stamps)
    for group in [group for group in plan.groups if group not in copied]:
        stored = {name: plan.stored[name] for name in plan.groups[group] if name in plan.stored}
        computed = {name: plan.computed[name] for name in plan.groups[group] if name in plan.computed}
        with (
            compute_parts(plan.compute, computed, source, writer.directory) as parts,
            Copier(stamps, advance) as copier,
        ):
            writer.write_parts(group, {**stored, **parts}, copier)
