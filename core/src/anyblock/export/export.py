"""`export_child`: a child in a form that other tools read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from anyblock.checkpoint.atomic import atomic_directory, check_target
from anyblock.checkpoint.space import require_space
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.errors import UnsupportedModelError, UsageError, nearest

if TYPE_CHECKING:
    from anyblock.family import ModelFamily


def export_child(
    child: str | os.PathLike[str],
    output: str | os.PathLike[str],
    format_name: str,
    *,
    family: ModelFamily | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a child in a form that other tools read; it appears at `output` only when it is complete.

    Args:
        child: a subblock checkpoint.
        output: the directory to write.
        format_name: a format of core (`anyblock.export.FORMATS`), of the child's adapter or of an extension.
        family: the adapter to use; None finds the installed one for the checkpoint's `model_type`.
        overwrite: replace what is at `output`.

    Returns:
        The real path of the output.

    Raises:
        UsageError: there is no such format.
        UnsupportedModelError: the format cannot express the child; the message says why, and which formats can.
        OutputExistsError: something is at `output` and is not to be replaced.
        CheckpointError: the child's files are damaged.
        ExecutionError: the output cannot be written.
    """
    from anyblock.modeling.complete import skeleton_of

    target = check_target(output, overwrite=overwrite, sources=[child])
    checkpoint = SubblockCheckpoint.open(child)
    if family is None:
        from anyblock.family import get_family

        family = get_family(checkpoint.config["model_type"])
    formats = family.export_formats()
    if format_name not in formats:
        hint = nearest(format_name, formats)
        raise UsageError(f"unknown format {format_name!r}", expected=f"one of {', '.join(formats)}", hint=hint)
    skeleton_of(checkpoint, family)  # every tensor of the child is there
    form = formats[format_name]
    if found := form.obstacles(checkpoint, family):
        able = [
            name for name, other in formats.items() if name != format_name and not other.obstacles(checkpoint, family)
        ]
        more = f"; and {len(found) - 5} reasons more" if len(found) > 5 else ""
        raise UnsupportedModelError(
            f"{child} cannot be expressed as {format_name}: {'; '.join(found[:5])}{more}",
            hint=f"formats that can: {', '.join(able)}" if able else "no installed format can express it",
        )
    require_space(target, sum(header.stamp.size for header in map(checkpoint.header, checkpoint.groups)))
    with atomic_directory(target, overwrite=overwrite, sources=[child]) as work:
        form.write(checkpoint, family, work)
    return target
