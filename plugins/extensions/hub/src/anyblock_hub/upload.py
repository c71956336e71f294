"""Files into a repository on the Hugging Face hub, in one commit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyblock.errors import ExecutionError, InputError, OutputExistsError, UsageError

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

_OF_THE_HUB: Final = frozenset({".gitattributes"})
"""Files that the hub itself puts into a new repository."""
MAIN: Final = "main"


def upload(
    files: Mapping[str, Path | bytes],
    repository: str,
    *,
    message: str,
    revision: str | None = None,
    private: bool = False,
    overwrite: bool = False,
) -> str:
    """Make `files` the content of a branch and return the commit's address.

    The large files go ahead and are not visible yet; one commit then shows all of them. Interrupted before it, an upload
    leaves the branch as it was, and the same call sends only what has not arrived. What the branch had besides is deleted
    in the same commit, which fails when somebody else has changed the branch meanwhile. A branch without a commit of its own
    counts as new: everything that it shows stays on the main one.

    Args:
        files: paths or contents by their names in the repository.
        repository: `owner/name`; made when it is missing.
        message: the commit's message.
        revision: a branch, made from the main one when it is missing; None is the main one.
        private: make a new repository private.
        overwrite: replace what a branch has already.

    Raises:
        UsageError: the repository's or the branch's name cannot be one, or the repository is public and is to be private.
        OutputExistsError: the branch has files already and is not to be replaced.
        InputError: there is no token, it may not write there, the hub cannot be reached, or it refuses the card's metadata.
        ExecutionError: the upload broke off, or the branch was changed meanwhile.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    check_upload(repository, revision)
    with _explaining(repository):
        api = HfApi()
        info, own = _branch(api, repository, revision or MAIN, private=private)
        there = {sibling.rfilename for sibling in info.siblings or ()} - _OF_THE_HUB
        if there and own and not overwrite:
            raise OutputExistsError(
                f"{repository} has {len(there)} files already on the branch {revision or MAIN}",
                hint="choose another name, another branch with --revision, or pass --overwrite; the commit before is kept",
            )
        add = [CommitOperationAdd(name, str(f) if isinstance(f, Path) else f) for name, f in files.items()]
        drop = [CommitOperationDelete(name) for name in sorted(there - files.keys())]
        commit = api.create_commit(
            repository, [*add, *drop], commit_message=message, revision=revision, parent_commit=info.sha
        )
    return str(commit.commit_url)


def check_upload(repository: str, revision: str | None) -> None:
    """Refuse, without asking the hub, what `upload` would refuse for its names or for want of a token.

    Raises:
        UsageError: the repository's or the branch's name cannot be one.
        InputError: there is no token.
    """
    from huggingface_hub import get_token

    check_name(repository, "a repository's")
    if "/" not in repository:
        raise UsageError(f"{repository!r} has no owner", expected="owner/name")
    if revision == "":
        raise UsageError("the branch has no name", expected="a name, or none for the main branch")
    if get_token() is None:
        raise InputError(
            f"no token of the hub was found, and without one nothing can be written to {repository}",
            hint="run `hf auth login`, or set HF_TOKEN to a token with write access",
        )


def check_name(repository: str, whose: str) -> None:
    """Refuse what cannot be a name on the hub.

    Raises:
        UsageError: it cannot; `whose` says whose name it was to be.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UsageError(f"{repository!r} cannot be {whose} name: {error}", expected="owner/name") from error


def _branch(api: HfApi, repository: str, branch: str, *, private: bool) -> tuple[ModelInfo, bool]:
    """Return what a branch has, and whether that is its own; makes the repository and the branch where need be.

    A branch begins at the main one's commit. An upload that was interrupted leaves it there.
    """
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        main = api.model_info(repository)
    except RepositoryNotFoundError:
        api.create_repo(repository, private=private, exist_ok=True)
        main = api.model_info(repository)
    if private and not main.private:
        raise UsageError(
            f"{repository} is public already, and was to be private",
            hint="leave out --private, choose another name, or make it private on its page first",
        )
    if branch == MAIN:
        return main, True
    try:
        info = api.model_info(repository, revision=branch)
    except RevisionNotFoundError:
        api.create_branch(repository, branch=branch, exist_ok=True)
        info = api.model_info(repository, revision=branch)
    return info, info.sha != main.sha


@contextmanager
def _explaining(repository: str) -> Iterator[None]:
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is httpx's or httpx2's own
        HfHubHTTPError,
        HTTPError,
        OfflineModeIsEnabled,
    )

    try:
        yield
    except OfflineModeIsEnabled as error:
        raise InputError(
            f"nothing can be written to {repository} while HF_HUB_OFFLINE is set", hint="unset it"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise InputError(
                f"the hub does not let this token write to {repository} ({status})",
                expected="a token with write access to it, and an owner that the token's user belongs to",
                hint="run `hf auth login`, or set HF_TOKEN",
            ) from error
        what = "was changed by somebody else meanwhile" if status == 412 else f"could not be written: {error}"
        raise _broken(repository, what) from error
    except ValueError as error:
        if not str(error).startswith("Invalid metadata in README.md"):
            raise _broken(repository, f"could not be written: {error}") from error
        raise InputError(
            f"the hub refuses the card of {repository}: {' '.join(str(error).split())}",
            expected="metadata that it knows",
            hint="name the licence by the hub's identifier with --license, or correct the README.md next to the child",
        ) from error
    except (HTTPError, OSError, RuntimeError) as error:
        raise _broken(repository, f"could not be written: {error}") from error


def _broken(repository: str, what: str) -> ExecutionError:
    return ExecutionError(
        f"{repository} {what}",
        hint="nothing of this upload is visible; run the same command again, what has arrived is not sent twice",
    )
