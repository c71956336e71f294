"""`push_child`: a child on the Hugging Face hub, with a model card."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from anyblock.contract.blocks import block_configs_from_json
from anyblock.contract.services import services

from anyblock_hub.model_card import Publication, card_metadata, model_card
from anyblock_hub.picture import architecture_svg, in_words
from anyblock_hub.upload import check_name, check_upload, upload

CARD: Final = "README.md"
PICTURE: Final = "architecture.svg"


@dataclass(frozen=True)
class Push:
    """What is pushed.

    Attributes:
        repository: `owner/name`.
        files: paths or contents by their names in the repository; the card is not among them.
        card: the content of README.md.
    """

    repository: str
    files: dict[str, Path | bytes]
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

    Args and Raises: see `push_child`. A picture of the child's layers is among the files, and in the card.
    """
    if base_model is not None:
        check_name(base_model, "the teacher's")
    with services().prepare_child(child, format_name=format_name, run=run) as prepared:
        files: dict[str, Path | bytes] = {name: file for name, file in prepared.files.items() if name != CARD}
        teacher = block_configs_from_json(prepared.summary["teacher_block_configs"])
        own = block_configs_from_json(prepared.summary["block_configs"])
        files[PICTURE] = architecture_svg(teacher, own, repository.rpartition("/")[2]).encode()
        about = Publication(
            repository=repository,
            distribution=prepared.distribution,
            form=format_name,
            remote_code=prepared.remote_code,
            base_model=base_model or (prepared.summary.get("origin") or "").partition("@")[0] or None,
            metadata=card_metadata(Path(child) / CARD),
            license=license_id,
            license_files=tuple(name for name in files if name.upper().startswith(("LICENSE", "LICENCE", "NOTICE"))),
        )
        card = model_card(prepared.summary, prepared.sections, about, picture=(PICTURE, in_words(teacher, own)))
        yield Push(repository, files, card)


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
