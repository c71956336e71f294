"""A checkpoint on the Hugging Face hub, of which only the configuration and the tensors' headers are fetched."""

from __future__ import annotations

from pathlib import Path

from anyblock.errors import InputError

from anyblock_conformance.headers import Shape


def fetch_headers(model: str, *, revision: str | None = None) -> tuple[Path, dict[str, Shape]]:
    """Return a directory with the configuration, and every tensor's shape and dtype; some hundred kilobytes in all.

    Raises:
        InputError: the hub does not have it, does not give it, cannot be reached, or it has no safetensors files.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HTTPError, NotASafetensorsRepoError, SafetensorsParsingError  # type: ignore[attr-defined]

    name = model if revision is None else f"{model} at revision {revision}"
    try:
        folder = snapshot_download(model, revision=revision, allow_patterns=["config.json", "*.py"])
        found = HfApi().get_safetensors_metadata(model, revision=revision)
    except (NotASafetensorsRepoError, SafetensorsParsingError) as error:
        raise InputError(
            f"{name} has no readable safetensors headers: {error}", expected="weights in safetensors format"
        ) from error
    except (HTTPError, OSError, ValueError) as error:
        raise InputError(
            f"the headers of {name} could not be fetched: {error}",
            expected="a model on the hub that may be read, or the directory of a downloaded one",
            hint="check the spelling, the network, HF_HUB_OFFLINE and HF_ENDPOINT",
        ) from error
    shapes = {
        tensor: Shape(str(info.dtype), tuple(info.shape))
        for file in found.files_metadata.values()
        for tensor, info in file.tensors.items()
    }
    return Path(folder), shapes
