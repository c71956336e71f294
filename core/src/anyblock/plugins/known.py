"""The shipped index of adapters that exist, installed or not, for the message about an unsupported model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from anyblock.errors import UnsupportedModelError, nearest


@cache
def known_adapters() -> dict[str, str]:
    """Return `{model_type: distribution}` of every adapter known when this core was released."""
    data: dict[str, str] = json.loads(files(__package__).joinpath("known.json").read_text(encoding="utf-8"))
    return data


def unsupported(model_type: str, installed: Iterable[str]) -> UnsupportedModelError:
    """Return the error for a model type that no installed adapter serves: nearest names, the distribution, the way to write one."""
    here = sorted(installed)
    listed = ", ".join(here) if here else "none is installed"
    known = known_adapters()
    if model_type in known:
        return UnsupportedModelError(
            f"no installed adapter serves model_type {model_type!r}",
            expected=f"one of the installed: {listed}",
            hint=f"pip install {known[model_type]}",
        )
    parts = []
    if near := nearest(model_type.lower(), here):
        parts.append(f"installed: {near}")
    if near := nearest(model_type.lower(), set(known) - set(here)):
        parts.append(f"known: {near} (pip install anyblock-<name>)")
    parts.append(
        f"write an adapter: anyblock new-family MODEL anyblock-{model_type.replace('_', '-')} (docs: plugins.md)"
    )
    return UnsupportedModelError(
        f"no adapter serves model_type {model_type!r}",
        expected=f"one of the installed: {listed}",
        hint="; ".join(parts),
    )
