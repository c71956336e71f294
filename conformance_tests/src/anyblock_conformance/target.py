"""From what the command line names to what is checked: a family, a directory, or a hub id."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from anyblock.checkpoint.hub import resolve_model
from anyblock.errors import UsageError
from anyblock.extensions import installed_plugins

from anyblock_conformance.hub import fetch_headers
from anyblock_conformance.report.model import Report
from anyblock_conformance.run import run_checkpoint, run_conformance


def run_target(
    target: str, *, full: bool = False, levels: Sequence[str] | None = None, revision: str | None = None
) -> Report:
    """Run the suite on what `target` names: an installed family, a checkpoint's directory, or a hub id.

    Raises:
        UnsupportedModelError: it is not a family that is installed.
        UsageError: an option that does not go with it.
        InputError: the checkpoint cannot be used.
    """
    if target in installed_plugins().model_types or not ("/" in target or Path(target).expanduser().exists()):
        if full or revision is not None:
            raise UsageError(
                f"{target} is a family; --full and --revision are about a checkpoint",
                expected="a directory or a hub id with these options",
                hint=f"for a directory of that name write ./{target}",
            )
        return run_conformance(target, levels=levels)
    options = ["--full"] * full + [f"--level {level}" for level in levels or ()]
    options += [f"--revision {revision}"] if revision is not None else []
    command = " ".join(["anyblock conformance", shlex.quote(target), *options])
    path, shapes = Path(target).expanduser(), None
    if not path.exists():
        if full:
            path = resolve_model(target, revision=revision)
        else:
            path, shapes = fetch_headers(target, revision=revision)
    return run_checkpoint(path, full=full, levels=levels, shapes=shapes, name=target, command=command)
