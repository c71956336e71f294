"""Letting a whole run use an adapter that is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from anyblock import extensions
from anyblock.errors import AnyBlockError
from anyblock.family import ModelFamily, get_family
from anyblock.plugins import PluginRegistry


@contextmanager
def serving(family: ModelFamily) -> Iterator[None]:
    """Within this scope `get_family` gives this adapter for its `model_type`; an installed one needs no scope."""
    try:
        installed = get_family(family.model_type)
    except AnyBlockError:
        installed = None
    if installed is not None and type(installed.descriptor) is type(family.descriptor):
        yield
        return
    registry = PluginRegistry.from_plugins({family.model_type: family.descriptor})
    original = extensions.installed_plugins
    extensions.installed_plugins = lambda: registry
    try:
        yield
    finally:
        extensions.installed_plugins = original
