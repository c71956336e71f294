"""`export_child`: a child in a form that other tools read."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyblock.checkpoint.atomic import atomic_directory, check_target
from anyblock.checkpoint.config import read_config
from anyblock.checkpoint.space import require_space
from anyblock.contract.settings import read_settings
from anyblock.contract.storage_type import STORAGE, chosen_types
from anyblock.conversion.convert import as_subblocks
from anyblock.errors import UnsupportedModelError
from anyblock.export.exported_child import ExportedChild
from anyblock.plugins.blame import blaming, check_result

if TYPE_CHECKING:
    from anyblock.contract.export_format import ExportFormat
    from anyblock.family import ModelFamily


def export_child(
    child: str | os.PathLike[str],
    output: str | os.PathLike[str],
    format_name: str,
    *,
    family: ModelFamily | None = None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a child in a form that other tools read; it appears at `output` only when it is complete.

    Args:
        child: a subblock checkpoint, or a child that `save_pretrained` wrote.
        output: the directory to write.
        format_name: a format of core, of the child's adapter or of an extension, or a program that it names as its reader;
            `anyblock list formats` shows them.
        family: the adapter to use; None finds the installed one for the checkpoint's `model_type`.
        settings: the format's own settings by name.
        overwrite: replace what is at `output`.

    Returns:
        The real path of the output.

    Raises:
        UsageError: there is no such format, or it has no such settings.
        UnsupportedModelError: the format cannot express the child; the message says why, and which formats can.
        OutputExistsError: something is at `output` and is not to be replaced.
        CheckpointError: the child's files are damaged.
        ExecutionError: the output cannot be written.
    """
    from anyblock.modeling.complete import skeleton_of

    target = check_target(output, overwrite=overwrite, sources=[child])
    if family is None:
        from anyblock.family import get_family

        family = get_family(read_config(child)["model_type"])
    chosen = family.one("formats", format_name)
    format_name = next(name for name, kind in family.export_formats().items() if kind is chosen)  # given by an alias
    form = chosen(read_settings(chosen.settings, settings or {}, f"format {format_name}"))
    with as_subblocks(child, target.with_name(f"{target.name}.child"), family) as checkpoint:
        skeleton_of(checkpoint, family)  # every tensor of the child is there
        seen = ExportedChild(checkpoint, family)
        if found := _obstacles(family, form, format_name, seen):
            able = [name for name, fit in formats_of(seen).items() if name != format_name and not fit["obstacles"]]
            more = f"; and {len(found) - 5} more reasons" if len(found) > 5 else ""
            raise UnsupportedModelError(
                f"{child} cannot be expressed as {format_name}: {'; '.join(found[:5])}{more}",
                hint=f"formats that can: {', '.join(able)}" if able else "no installed format can express it",
            )
        require_space(target, sum(header.stamp.size for header in map(checkpoint.header, checkpoint.groups)))
        with (
            atomic_directory(target, overwrite=overwrite, sources=[child]) as work,
            _blaming(family, form, format_name),
        ):
            form.write(seen, work)
        stated = checkpoint.config.get(STORAGE)
        if stated and not chosen_types(checkpoint.config, format_name):
            note = f"{format_name} has weights in their own dtype, not in the storage types that the search chose"
            warnings.warn(f"{note} for {stated['format']}", stacklevel=2)
    return target


def formats_of(child: ExportedChild) -> dict[str, dict[str, list[str]]]:
    """Return by format why a child cannot be expressed in it, `obstacles`; where these are empty, what to know, `remarks`."""
    found = {}
    for name, kind in child.family.export_formats().items():
        try:
            obstacles = _obstacles(child.family, form := kind(), name, child)
            found[name] = {"obstacles": obstacles, "remarks": [] if obstacles else list(form.remarks(child))}
        except Exception as error:  # noqa: BLE001 - a broken format costs only itself
            found[name] = {"obstacles": [" ".join(str(error).split()) or repr(error)], "remarks": []}
    return found


def _blaming(family: ModelFamily, form: ExportFormat, name: str) -> AbstractContextManager[None]:
    return blaming(family.origins("formats")[name], f"the export format {name!r}", form)


def _obstacles(family: ModelFamily, form: ExportFormat, name: str, child: ExportedChild) -> list[str]:
    with _blaming(family, form, name):
        found = form.obstacles(child)
    check_result(family.origins("formats")[name], f"the export format {name!r}", found, list, "a list of reasons")
    return found
