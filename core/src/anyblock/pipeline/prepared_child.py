"""A finished child in the form in which others get it, with what its run says about it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from anyblock.checkpoint.atomic import scratch_directory
from anyblock.checkpoint.config import CONFIG, read_config
from anyblock.checkpoint.config_view import config_view
from anyblock.checkpoint.files import inside
from anyblock.checkpoint.hub import recorded_origin
from anyblock.contract.services import PreparedChild
from anyblock.conversion.convert import as_subblocks
from anyblock.costs.cost_model import Scenario
from anyblock.errors import InputError
from anyblock.family import get_family
from anyblock.modeling.complete import skeleton_of
from anyblock.pipeline.inspection import inspect_model
from anyblock.report.markdown import report_sections
from anyblock.report.summary import RunSummary
from anyblock.run.run_folder import RunFolder, read_json
from anyblock.stages.child import STAGE as CHILD_STAGE

if TYPE_CHECKING:
    from anyblock.checkpoint.subblocks import SubblockCheckpoint
    from anyblock.family import ModelFamily


@contextmanager
def prepare_child(
    child: str | os.PathLike[str], *, format_name: str | None = None, run: str | os.PathLike[str] | None = None
) -> Iterator[PreparedChild]:
    """See `Services.prepare_child`."""
    path = Path(child)
    # Next to the child, since /tmp may be too small for a model.
    scratch = path.resolve().with_name(f"{path.resolve().name}.prepared")
    with ExitStack() as stack:
        checkpoint = stack.enter_context(as_subblocks(path, scratch))
        family = get_family(checkpoint.config["model_type"])
        skeleton_of(checkpoint, family)  # every tensor of the child is there
        summary = _summary(path, checkpoint, family, None if run is None else Path(run))
        folder = checkpoint.path
        if format_name is not None:
            from anyblock.export.export import export_child

            exported = stack.enter_context(scratch_directory(scratch)) / "export"
            folder = export_child(checkpoint.path, exported, format_name, family=family)
        yield PreparedChild(
            files=_files(folder),
            distribution=family.distribution,
            remote_code=(folder / CONFIG).is_file() and "auto_map" in read_config(folder),
            summary=summary.to_dict(),
            sections=report_sections(summary),
        )


def _files(folder: Path) -> dict[str, Path]:
    """Return `{name: file}` of everything that is not hidden.

    Raises:
        CheckpointError: a link leads outside of the folder.
    """
    names = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    shown = [str(name) for name in names if not any(part.startswith(".") for part in name.parts)]
    return {name: inside(folder, name) for name in shown}


def _summary(path: Path, child: SubblockCheckpoint, family: ModelFamily, given: Path | None) -> RunSummary:
    """Return what the run of the child at `path` did; of a child without one, what its configuration says."""
    run = given or path.with_name(path.name + ".run")
    if (run / "run.yaml").is_file() and _made(run, child):
        return RunSummary.from_dict(read_json(run / "summary.json"))
    if given is not None:
        raise InputError(
            f"{given} is not the run that made {path}",
            expected="the run folder of this child, finished",
            hint="leave out --run for a card without the run's figures",
        )
    whole = family.create_block_configs(config_view(child.config))
    return RunSummary(
        command="",
        teacher=str(child.config.get("_name_or_path") or "the teacher"),
        model_type=family.model_type,
        block_configs=[block.to_dict() for block in child.block_configs],
        teacher_block_configs=[block.to_dict() for block in whole],
        costs={name: float(value) for name, value in inspect_model(child.path, Scenario()).costs.total.items()},
        origin=recorded_origin(path),
    )


def _made(run: Path, child: SubblockCheckpoint) -> bool:
    done = RunFolder.open(run)
    if not (run / "summary.json").is_file():
        return False
    return bool(read_json(done.result(CHILD_STAGE, "child.json"))["fingerprint"] == child.fingerprint())
