"""A run's model on the hub, held to one commit."""

from __future__ import annotations

from pathlib import Path

import yaml  # type: ignore[import-untyped]

from anyblock.checkpoint.hub import origin_of, resolve_model, split_revision
from anyblock.config.schema import RunConfig


def pin_model(config: RunConfig, run: Path) -> tuple[RunConfig, Path]:
    """Return the configuration with a hub id's commit as its revision, and the model's directory.

    A run that is started again without a revision continues with the commit in its `run.yaml`, though the branch may have
    moved on meanwhile; naming a revision, if only `main`, looks it up anew.

    Args:
        config: what was asked for.
        run: the run folder, which need not be there yet.

    Raises:
        InputError: see `anyblock.checkpoint.hub.resolve_model`.
    """
    if Path(config.model).expanduser().exists():
        return config, resolve_model(config.model, revision=config.revision)
    name, own = split_revision(config.model)
    asked = config.revision or own or _recorded(run, name)
    folder = resolve_model(config.model, revision=asked)
    commit = (origin_of(folder) or "").rpartition("@")[2]
    return config.model_copy(update={"model": name, "revision": commit or asked}), folder


def _recorded(run: Path, model: str) -> str | None:
    """Return the revision in the `run.yaml` of an earlier start with the same model."""
    try:
        earlier = yaml.safe_load((run / "run.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    if not isinstance(earlier, dict) or earlier.get("model") != model:
        return None
    revision = earlier.get("revision")
    return revision if isinstance(revision, str) else None
