"""The typed handle on what core and the installed extensions add by name, and the registry behind it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from anyblock.contract.kinds import KINDS, Kind
from anyblock.errors import UsageError, nearest
from anyblock.plugins import results
from anyblock.plugins.collecting import CORE, collect, owners
from anyblock.plugins.known import missing
from anyblock.plugins.registry import PluginRegistry
from anyblock.plugins.relay import Registered, Relay
from anyblock.plugins.settings import PluginSettings
from anyblock.plugins.status import Origin

if TYPE_CHECKING:
    from anyblock.contract.export_format import ExportFormat
    from anyblock.contract.importance_hook import ImportanceHook
    from anyblock.contract.pruning_mixin import PruningMixIn


class Extensions:
    """What core and the installed extensions add by name: one mapping for each kind in `anyblock.contract.kinds.KINDS`.

    Objects are checked as they come: one that is not of its kind is a `PluginError` that names the plugin.
    """

    def __init__(
        self, extensions: Iterable[Registered], *, descriptor: Registered | None = None, strict: bool = False
    ) -> None:
        self._strict: Final = strict
        self._relay: Final = Relay(descriptor, extensions)

    @property
    def extensions(self) -> tuple[str, ...]:
        """The extensions in use, each as `distribution version`; core's own plugin is not one of them."""
        origins = (registered.origin for registered in self._relay.extensions)
        return tuple(str(origin) for origin in origins if origin.distribution != CORE)

    def named(self, kind: str) -> dict[str, Any]:
        """Return every object of one kind by name, sorted, from core, the adapter and the extensions.

        Args:
            kind: a name of `KINDS`.

        Raises:
            UsageError: there is no such kind.
            PluginError: two plugins give one name, or an object is not of this kind.
        """
        found = _kind(kind)
        form = "subclasses" if found.classes else "objects"
        check = results.mapping_of(found.accepts, f"a dict of {found.base} {form} by name")
        return collect(self._relay, found.hook, check, strict=self._strict)

    def origins(self, kind: str) -> dict[str, Origin]:
        """Return which distribution gives each name of one kind; the outermost one where a wrapper adds it."""
        names, hook = self.named(kind), _kind(kind).hook  # leaves out what is broken, and reports clashes
        wrapped = dict.fromkeys(names, self._relay.wrappers(hook)[:1])
        return {name: around[0].origin for name, around in wrapped.items() if around} | owners(self._relay, hook)

    def importance_hooks(self) -> dict[str, type[ImportanceHook]]:
        """See `FamilySpec.importance_hooks`."""
        return self.named("hooks")

    def pruning_mixins(self) -> dict[str, PruningMixIn]:
        """See `FamilySpec.pruning_mixins`."""
        return self.named("kinds")

    def export_formats(self) -> dict[str, type[ExportFormat]]:
        """See `FamilySpec.export_formats`."""
        return self.named("formats")

    def infer_family(self, model_type: str, model: str | None) -> object | None:
        """See `FamilySpec.infer_family`; None where no extension infers families."""
        found: object | None = self._relay.raw("infer_family", model_type=model_type, model=model)
        return found

    def standard_config(self, config: dict[str, Any]) -> dict[str, Any]:
        """See `FamilySpec.standard_config`; the configuration itself where no extension reads it."""
        found = self._relay.raw("standard_config", config=config) or config
        return self._relay.check("standard_config", results.instance(dict, "a dict, or None"), found)

    def one(self, kind: str, name: str) -> Any:
        """Return the object of one kind that has this name, or else the first that gives it as one of its `aliases`.

        Raises:
            UsageError: nothing has this name; the nearest names are in the message.
        """
        named = self.named(kind)
        found = {alias: own for own in reversed(named.values()) for alias in getattr(own, "aliases", ())} | named
        if name not in found:
            if absent := missing(kind, _kind(kind).singular, name):
                raise UsageError(**absent)
            raise UsageError(
                f"there is no {_kind(kind).singular} {name!r}",
                expected=", ".join(found) or f"a plugin that gives one; `anyblock list {kind}` shows none",
                hint=nearest(name, found),
            )
        return found[name]


def installed_extensions() -> Extensions:
    """Return core's own kinds and those of every installed extension, for what does not depend on a family."""
    registry = installed_plugins()
    return Extensions(registry.extensions(), strict=registry.settings.strict)


def _kind(name: str) -> Kind:
    if name not in KINDS:
        raise UsageError(f"unknown kind {name!r}", expected=", ".join(KINDS), hint=nearest(name, KINDS))
    return KINDS[name]


def installed_plugins() -> PluginRegistry:
    """Return the registry of what is installed, read again only when the settings or `sys.path` have changed."""
    return _installed(_Environment())


class _Environment:
    """The settings and the path as a cache key, since a mapping cannot be one."""

    def __init__(self) -> None:
        self.settings: Final = PluginSettings.from_env()
        self._key: Final = (repr(self.settings), tuple(sys.path))

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Environment) and self._key == other._key


@lru_cache(maxsize=4)
def _installed(environment: _Environment) -> PluginRegistry:
    return PluginRegistry.discover(environment.settings)
