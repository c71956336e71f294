"""The model card of a child on the hub: metadata that the hub reads, and a page for people."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyblock.errors import InputError

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

_CARRIED: Final = ("license", "license_name", "license_link", "language", "pipeline_tag")
"""Metadata of the teacher's card that is true of its child as well."""


@dataclass(frozen=True)
class Publication:
    """What a model card says besides the run.

    Attributes:
        repository: where the child goes, `owner/name`.
        distribution: the adapter's distribution.
        form: the export format, or None for the child's own form, the subblock checkpoint.
        remote_code: whether transformers needs the code that comes with the weights.
        base_model: the teacher's hub id; None where it is not on the hub.
        metadata: of the teacher's card.
        license: the licence's identifier, in place of the one in `metadata`.
        license_files: names of the licence texts that come along.
    """

    repository: str
    distribution: str
    form: str | None = None
    remote_code: bool = False
    base_model: str | None = None
    metadata: dict[str, Any] | None = None
    license: str | None = None
    license_files: tuple[str, ...] = ()


def model_card(
    run: Mapping[str, Any], sections: Mapping[str, str], publication: Publication, *, picture: tuple[str, str]
) -> str:
    """Return the content of a child's README.md.

    Args:
        run: the run's summary. Without a command, for a child whose run is not at hand, the card says nothing of budget,
            quality and search.
        sections: the report's sections by heading, see `PreparedChild`.
        publication: where it goes and in which form.
        picture: the name of the file with the picture of the layers, and what it shows, in words.
    """
    from huggingface_hub import ModelCard
    from jinja2 import Environment, PackageLoader, StrictUndefined

    data = _metadata(publication, _metrics(run))
    environment = Environment(
        loader=PackageLoader("anyblock_hub"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.get_template("card.md.j2").render(
        run=run,
        sections=sections,
        about=publication,
        picture=picture,
        name=publication.repository.rpartition("/")[2],
        teacher=publication.base_model or Path(run["teacher"]).name,
        license=getattr(data, "license_name", None) or data.license,
        command=_public(run["command"], publication.base_model),
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text.rstrip()}\n"))


def card_metadata(readme: Path) -> dict[str, Any]:
    """Return the metadata of a model card; empty where there is no card, or none in front of its text.

    Raises:
        InputError: the metadata cannot be read.
    """
    import yaml  # type: ignore[import-untyped]
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    if not readme.is_file():
        return {}
    try:
        found = REGEX_YAML_BLOCK.search(readme.read_text(encoding="utf-8"))
        data = yaml.safe_load(found.group(2)) if found else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(
            f"the metadata in front of {readme} cannot be read: {error}",
            expected="YAML between two lines of ---",
            hint="mend it, or delete the file and name the licence with --license",
        ) from error
    return data if isinstance(data, dict) else {}


def _metrics(run: Mapping[str, Any]) -> list[str]:
    """Return the ids of what the card gives figures of, as the hub knows them."""
    further = {figure["name"] for found in (run.get("evaluations") or {}).values() for figure in found}
    return [*(["perplexity"] if run.get("quality") else []), *(["accuracy"] if "accuracy" in further else [])]


def _metadata(publication: Publication, metrics: list[str]) -> ModelCardData:
    from huggingface_hub import ModelCardData

    known = publication.metadata or {}
    carried = {name: known[name] for name in _CARRIED if known.get(name)}
    if publication.license is not None:
        carried = {name: value for name, value in carried.items() if not name.startswith("license")}
        carried["license"] = publication.license
    return ModelCardData(
        **{"pipeline_tag": "text-generation"} | carried,
        base_model=publication.base_model,
        metrics=metrics or None,
        library_name="anyblock" if publication.form is None else "transformers",
        tags=["anyblock", "pruned", *(["custom_code"] if publication.remote_code else [])],
    )


def _public(command: str, base_model: str | None) -> str:
    """Return the command without the folders of the machine on which it ran."""
    words = shlex.split(command)
    if len(words) < 4:
        return ""
    words[2] = base_model or Path(words[2]).name
    return shlex.join([*words[:3], *_without_folders(words[3:])])


def _without_folders(words: Iterable[str]) -> list[str]:
    return [Path(word).name if "/" in word and "=" not in word else word for word in words]
