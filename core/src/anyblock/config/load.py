"""`load_config`: from a YAML file and overrides to a validated `RunConfig`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from anyblock.config.interpolation import resolve
from anyblock.config.overrides import apply_override
from anyblock.config.problems import configuration_error
from anyblock.config.schema import RunConfig
from anyblock.config.source import read_yaml
from anyblock.config.tree import Tree
from anyblock.progress import SILENT, Progress


def load_config(
    path: str | Path | None,
    overrides: Sequence[str] = (),
    base: Mapping[str, Any] | None = None,
    *,
    progress: Progress = SILENT,
) -> RunConfig:
    """Read the configuration of one run.

    Args:
        path: a YAML file, AnyBlock's own or one of the guide's; None when `base` and `overrides` say everything.
        overrides: `KEY=VALUE` or `~KEY`, applied in order on top of the file.
        base: values that the file and the overrides take precedence over, for instance `{"model": ..., "output": ...}`.
        progress: is told what was accepted without having an effect.

    Returns:
        The validated configuration, with every default filled in.

    Raises:
        ConfigError: the file cannot be used; one message lists every wrong key with its line.
        UsageError: an override has another form.
    """
    tree = Tree(json.loads(json.dumps(dict(base or {}))))
    if path is not None:
        tree.merge(read_yaml(Path(path)))
    for override in overrides:
        apply_override(tree, override)
    return validate(tree)


def validate(tree: Tree) -> RunConfig:
    """Resolve interpolations and check every key of `tree`.

    Raises:
        ConfigError: one message lists every fault with the place where it was written.
    """
    try:
        return RunConfig.model_validate(resolve(tree))
    except ValidationError as error:
        raise configuration_error(error, tree, RunConfig) from error
