"""`push_child`: a child on the Hugging Face hub, with a model card."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyblock.checkpoint.atomic import scratch_directory
from anyblock.checkpoint.config import CONFIG, read_config
from anyblock.checkpoint.config_view import config_view
from anyblock.checkpoint.files import inside
from anyblock.checkpoint.hub import recorded_origin
from anyblock.conversion.convert import as_subblocks
from anyblock.costs.cost_model import Scenario
from anyblock.errors import InputError
from anyblock.family import get_family
from anyblock.modeling.complete import skeleton_of
from anyblock.pipeline.inspection import inspect_model
from anyblock.pipeline.run_folder import RunFolder, read_json
from anyblock.pipeline.stages.child import STAGE as CHILD_STAGE
from anyblock.publish.model_card import Publication, card_metadata, model_card
from anyblock.publish.upload import check_upload, upload
from anyblock.report.summary import RunSummary

if TYPE_CHECKING:
    from anyblock.checkpoint.subblocks import SubblockCheckpoint
    from anyblock.family import ModelFamily

CARD: Final = "README.md"


@dataclass(frozen=True)
class Push:
    """What is pushed.

    Attributes:
        repository: `owner/name`.
        files: by their names in the repository; the card is not among them.
        card: the content of README.md.
    """

    repository: str
    files: dict[str, Path]
    card: str


@contextmanager
def prepare_push(
    child: str | os.PathLike[str],
    repository: str,
    *,
    format_name: str | None = None,
    run: str | os.PathLike[str] | None = None,
    base_model: str | None = None,
    license_id: str | None = None,
) -> Iterator[Push]:
    """Give what `push_child` would push; nothing is sent, and an exported form is gone afterwards.

    Args and Raises: see `push_child`.
    """
    path = Path(child)
    # Next to the child, since /tmp may be too small for a model.
    scratch = path.resolve().with_name(f"{path.resolve().name}.push")
    with ExitStack() as stack:
        checkpoint = stack.enter_context(as_subblocks(path, scratch))
        family = get_family(checkpoint.config["model_type"])
        skeleton_of(checkpoint, family)  # every tensor of the child is there
        summary = _summary(path, checkpoint, family, None if run is None else Path(run))
        folder = stack.enter_context(_form(checkpoint.path, scratch, family, format_name))
        files = _files(folder)
        about = Publication(
            repository=repository,
            distribution=family.distribution,
            form=format_name,
            remote_code=(folder / CONFIG).is_file() and "auto_map" in read_config(folder),
            base_model=base_model or (summary.origin or "").partition("@")[0] or None,
            metadata=card_metadata(path / CARD),
            license=license_id,
            license_files=tuple(name for name in files if name.upper().startswith(("LICENSE", "LICENCE", "NOTICE"))),
        )
        yield Push(repository, files, model_card(summary, about))


def push_child(
    child: str | os.PathLike[str],
    repository: str,
    *,
    format_name: str | None = None,
    run: str | os.PathLike[str] | None = None,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    base_model: str | None = None,
    license_id: str | None = None,
    overwrite: bool = False,
) -> str:
    """Put a child on the hub, with a generated model card, in one commit; return the commit's address.

    Args:
        child: a subblock checkpoint, or a child that `save_pretrained` wrote, which is pushed as a subblock checkpoint.
        repository: `owner/name`; made when it is missing.
        format_name: push what `anyblock export` writes in this format; None pushes the child as it is.
        run: the run folder, for the card; None is `CHILD.run` next to the child, if it is there and is this child's.
        private: make a new repository private.
        revision: a branch, made when it is missing; None is the main one.
        message: the commit's message.
        base_model: the teacher's hub id; None is the one that the run recorded.
        license_id: the licence's identifier; None is the one in the teacher's own card.
        overwrite: replace what the branch has.

    Raises:
        InputError: the child, the run or the teacher's card cannot be used; there is no token, it may not write there,
            or the hub cannot be reached. Nothing is then sent.
        OutputExistsError: the branch has files already and is not to be replaced.
        ExecutionError: the upload broke off; nothing of it is visible, and the same call continues.
    """
    check_upload(repository, revision)
    with prepare_push(
        child, repository, format_name=format_name, run=run, base_model=base_model, license_id=license_id
    ) as push:
        return upload(
            {**push.files, CARD: push.card.encode()},
            repository,
            message=message or f"Upload {Path(child).resolve().name} with AnyBlock",
            revision=revision,
            private=private,
            overwrite=overwrite,
        )


@contextmanager
def _form(child: Path, scratch: Path, family: ModelFamily, format_name: str | None) -> Iterator[Path]:
    if format_name is None:
        yield child
        return
    from anyblock.export.export import export_child

    with scratch_directory(scratch) as folder:
        yield export_child(child, folder / "export", format_name, family=family)


def _files(folder: Path) -> dict[str, Path]:
    """Return `{name: file}` of everything but what is hidden and the card.

    Raises:
        CheckpointError: a link leads outside of the folder.
    """
    names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
    shown = [name for name in names if name != CARD and not any(part.startswith(".") for part in Path(name).parts)]
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
