"""Files of data sets on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from anyblock.errors import InputError

HUB: Final = "hf://"


def fetched(address: str) -> Path:
    """Return the place on this machine of a file or folder of a data set on the hub; it is downloaded if need be.

    Args:
        address: `hf://datasets/OWNER/NAME/PATH`; without a path, the whole data set.

    Raises:
        InputError: there is no such data set or file, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    parts = address.removeprefix(HUB).removeprefix("datasets/").strip("/").split("/")
    if len(parts) < 2 or not all(parts):
        raise InputError(f"{address} names no data set", expected=f"{HUB}datasets/OWNER/NAME or .../NAME/PATH")
    name, inside = "/".join(parts[:2]), "/".join(parts[2:])
    wanted = [inside, f"{inside}/*"] if inside else None
    try:
        root = Path(snapshot_download(name, repo_type="dataset", allow_patterns=wanted))
    except RepositoryNotFoundError as error:
        raise InputError(
            f"the hub has no data set {name}", expected="the name of one, or a login that may read it"
        ) from error
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"{address} cannot be downloaded: {error}", expected="a data set that can be reached"
        ) from error
    found = root / inside
    if not found.exists():
        raise InputError(f"the data set {name} has no file {inside}", expected="a path inside the data set")
    return found
