"""Finding a model: a directory, or a repository on the Hugging Face hub."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from anyblock.checkpoint.config import read_config, refuse_adapter
from anyblock.checkpoint.files import gguf_hint
from anyblock.checkpoint.index import INDEX
from anyblock.errors import InputError, UsageError

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_REVISION: Final = re.compile(r"[0-9a-f]{40}")
_PINNED: Final = re.compile(r"(?P<model>[^@]+)@(?P<revision>[\w./-]+)")
PATTERNS: Final = (
    "*.safetensors",
    "*.json",
    "*.py",
    "*.txt",
    "*.model",
    "*.tiktoken",
    "*.jinja",
    "tokenizer*",
    "LICENSE*",
    "NOTICE*",
    "README*",
)
"""What is downloaded of a model."""
CONFIG_PATTERNS: Final = ("config.json", "*.py")
"""What is downloaded where only the configuration is wanted."""
UNWANTED: Final = (
    "consolidated*",
    "original/*",
    "onnx/*",
    "openvino/*",
    "gguf/*",
    "metal/*",
    "runs/*",
    "checkpoint-*/*",
)
"""What is not downloaded although a pattern matches it."""


def resolve_model(model: str, *, revision: str | None = None, patterns: Iterable[str] = PATTERNS) -> Path:
    """Return the directory of a model, downloading it first if it is a hub id.

    Args:
        model: a directory or a hub id, `owner/name` or `owner/name@revision`. A directory of that name comes first.
        revision: branch, tag or commit on the hub; None is the one after `@`, or the main branch.
        patterns: which files are downloaded.

    Raises:
        InputError: neither a directory nor a hub id, or the hub does not have it, does not give it or cannot be
            reached.
        CheckpointError: it is an adapter, or holds one.
        UsageError: a revision of a local directory, or two revisions.
    """
    path = Path(model).expanduser()
    if model and path.is_dir():
        if revision is not None:
            raise UsageError(
                f"{model} is a directory and has no revision {revision!r}", expected="a revision of a hub id"
            )
        refuse_adapter(path)
        return path
    if model and os.path.lexists(path):
        expected = "the directory of a model, or a hub id"
        raise InputError(f"{model} is not a directory", expected=expected, hint=gguf_hint(path.parent, [path.name]))
    if _looks_like_path(model):
        raise InputError(
            f"{model or 'the empty name'} does not exist",
            expected="the directory of a model, or a hub id such as owner/name",
        )
    folder = _download(*_name_and_revision(model, revision), patterns)
    refuse_adapter(folder)
    return folder


def config_path(model: str) -> Path | None:
    """Return where the configuration of what a user names is: a directory or a `config.json`; None for a `model_type`.

    Of a hub id (`owner/name`) only the configuration is fetched.

    Raises:
        InputError: the hub does not have it, does not give it or cannot be reached.
    """
    path = Path(model).expanduser()
    if path.exists():
        return path
    return resolve_model(model, patterns=CONFIG_PATTERNS) if "/" in model else None


def model_type_of(model: str) -> str:
    """Return the `model_type` of a checkpoint's directory, a `config.json` or a hub id; any other text is one itself.

    Raises:
        ConfigError: the file cannot be used.
        InputError: the hub does not have it, does not give it or cannot be reached.
    """
    path = config_path(model)
    return model if path is None else str(read_config(path)["model_type"])


def split_revision(model: str) -> tuple[str, str | None]:
    """Return `owner/name` and the revision of `owner/name@revision`; the text itself and None where it is no such id."""
    found = _PINNED.fullmatch(model)
    if found is None or Path(model).expanduser().exists() or not _HUB_ID.fullmatch(found["model"]):
        return model, None
    return found["model"], found["revision"]


def origin_of(path: str | os.PathLike[str]) -> str | None:
    """Return `owner/name@commit` of a directory in the cache of huggingface_hub; None for any other directory."""
    folder = Path(os.path.realpath(path))
    cached = folder.parent.name == "snapshots" and _REVISION.fullmatch(folder.name)
    repository = folder.parent.parent.name
    if not cached or not repository.startswith("models--"):
        return None
    return f"{repository.removeprefix('models--').replace('--', '/')}@{folder.name}"


def recorded_origin(path: Path) -> str | None:
    """Return `owner/name@commit` of a directory in the cache, or as the conversion that wrote it recorded; else None."""
    if origin := origin_of(path):
        return origin
    try:
        metadata = json.loads((path / INDEX).read_text(encoding="utf-8"))["metadata"]
        source = metadata.get("source")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return source if isinstance(source, str) else None


def _name_and_revision(model: str, revision: str | None) -> tuple[str, str | None]:
    name, own = split_revision(model)
    if own is not None and revision is not None and own != revision:
        raise UsageError(f"{model} names the revision {own!r}, and {revision!r} was given too", expected="one of them")
    return name, own if revision is None else revision


def _looks_like_path(model: str) -> bool:
    name, _ = split_revision(model)
    return name.startswith(("~", ".", "/")) or name.endswith("/") or not _HUB_ID.fullmatch(name)


def _download(model: str, revision: str | None, patterns: Iterable[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is httpx's or httpx2's own
        GatedRepoError,
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name = model if revision is None else f"{model} at revision {revision}"
    try:
        return Path(
            snapshot_download(model, revision=revision, allow_patterns=list(patterns), ignore_patterns=list(UNWANTED))
        )
    except GatedRepoError as error:
        raise InputError(
            f"{name} is gated on the hub", hint="accept its terms on its page, then run `hf auth login` or set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"{model} is neither a directory here nor a repository on the hub that may be read",
            hint="check the spelling; for a private repository run `hf auth login` or set HF_TOKEN",
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(
            f"{model} has no revision {revision!r} on the hub", expected="a branch, a tag or a commit"
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise InputError(
            f"{name} is not a directory here, not in the cache of huggingface_hub, and the hub cannot be reached",
            hint="check the network, HF_HUB_OFFLINE and HF_ENDPOINT, or give the path of a downloaded model",
        ) from error
    except HFValidationError as error:
        raise InputError(f"{model} is neither a directory nor a hub id: {error}") from error
    except (HTTPError, OSError) as error:
        raise InputError(
            f"{name} could not be downloaded: {error}", hint="run the same command again to continue"
        ) from error
