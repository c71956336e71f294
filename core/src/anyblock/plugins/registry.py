"""The registry of installed plugins: what there is, and the objects that the asked-for ones register."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import Distribution, distributions
from typing import Final, Self

from anyblock.contract.hookspecs import EXTENSIONS_GROUP, FAMILIES_GROUP
from anyblock.errors import PluginError, UsageError
from anyblock.plugins.collecting import CORE, leave_out
from anyblock.plugins.known import unsupported
from anyblock.plugins.loading import PluginLoadError, instance_of, load_object
from anyblock.plugins.metadata import read_records
from anyblock.plugins.relay import Registered, admit
from anyblock.plugins.resolve import Resolution, conflict_error, resolve
from anyblock.plugins.settings import PREFER_VARIABLE, PluginSettings
from anyblock.plugins.status import Origin, PluginRecord, PluginStatus
from anyblock.version import VERSION


def builtins() -> Registered:
    """Return core's own plugin: it is loaded and admitted like any other, and every family has it.

    Raises:
        PluginLoadError: it cannot be loaded.
    """
    return _builtins(VERSION)


@lru_cache(maxsize=1)
def _builtins(version: str) -> Registered:
    origin = Origin(CORE, version, "builtin")
    return admit(load_object(origin, EXTENSIONS_GROUP, "anyblock.builtin:Builtins"), origin)


class PluginRegistry:
    """Every plugin with its status; an adapter is imported when it is first asked for, and nothing else is.

    Use `discover` for what is installed and `from_plugins` for objects at hand. Threads may share either.
    """

    def __init__(
        self,
        records: Iterable[PluginRecord],
        settings: PluginSettings | None = None,
        *,
        objects: Mapping[tuple[str, str], object] | None = None,
        core_version: str | None = None,
    ) -> None:
        self.settings: Final = settings or PluginSettings()
        self.core_version: Final = core_version or VERSION
        self._resolution: Resolution = resolve(list(records), self.settings, self.core_version)
        self._objects: Final = dict(objects or {})
        self._loaded: Final[dict[tuple[str, str, str], Registered | PluginLoadError]] = {}
        self._lock: Final = threading.RLock()

    @classmethod
    def discover(
        cls,
        settings: PluginSettings | None = None,
        *,
        prefer: Mapping[str, str] | None = None,
        strict: bool | None = None,
        found: Iterable[Distribution] | None = None,
        core_version: str | None = None,
    ) -> Self:
        """Read the metadata of every installed distribution; nothing is imported.

        Args:
            settings: what is allowed; from the environment when not given.
            prefer: `{model_type: distribution}` for contested model types, before the environment's preferences.
            strict: whether any fault is an error; None leaves it to `settings`.
            found: the distributions to read; those on `sys.path` when not given.
            core_version: the version to check requirements against; this core's own when not given.
        """
        chosen = settings or PluginSettings.from_env()
        if prefer:
            chosen = chosen.preferring(prefer)
        if strict is not None:
            chosen = replace(chosen, strict=strict)
        return cls(read_records(distributions() if found is None else found), chosen, core_version=core_version)

    @classmethod
    def from_plugins(
        cls,
        families: Mapping[str, object],
        extensions: Mapping[str, object] | None = None,
        *,
        settings: PluginSettings | None = None,
        strict: bool = False,
    ) -> Self:
        """Build a registry from objects or classes at hand, without looking at what is installed.

        Args:
            families: `{model_type: descriptor}`.
            extensions: `{name: extension}`.
        """
        objects = {(FAMILIES_GROUP, name): plugin for name, plugin in families.items()}
        objects |= {(EXTENSIONS_GROUP, name): plugin for name, plugin in (extensions or {}).items()}
        records = [
            PluginRecord(distribution=name, version="(given)", group=group, entries={name: _describe(plugin)})
            for (group, name), plugin in sorted(objects.items(), key=lambda item: item[0])
        ]
        return cls(records, settings or PluginSettings(strict=strict), objects=objects)

    @property
    def records(self) -> tuple[PluginRecord, ...]:
        """Every plugin's record, sorted by group and name, with what loading has shown so far."""
        return self._resolution.records

    @property
    def notices(self) -> tuple[str, ...]:
        """What is odd about the settings: names in a list that are not installed, preferences that decide nothing."""
        return self._resolution.notices

    @property
    def model_types(self) -> tuple[str, ...]:
        """Every `model_type` that can be asked for, sorted."""
        return tuple(sorted(self._resolution.providers))

    def check(self) -> None:
        """Raise where the user's choice of adapters cannot be followed, and in strict mode when anything is wrong.

        Raises:
            UsageError: a preference decides nothing, since it is misspelled or not installed.
            PluginError: strict mode, and a plugin has a fault or a setting names what is not there; lists them all.
        """
        if unheeded := [notice for notice in self.notices if notice.startswith(PREFER_VARIABLE)]:
            raise UsageError("; ".join(unheeded), hint="anyblock families shows what is installed")
        faults = [f"{record.origin()} ({record.status}): {record.reason}" for record in self.records if record.faulty]
        faults += self.notices
        if self.settings.strict and faults:
            raise PluginError(
                "strict mode: " + "; ".join(faults), hint="anyblock families shows each; anyblock doctor how to mend it"
            )

    def provider(self, model_type: str) -> PluginRecord:
        """Return the record of the plugin that serves this model type, without importing it.

        Raises:
            UnsupportedModelError: no installed plugin serves it.
            PluginError: the one that does is blocked, incompatible or broken, or several claim the model type.
        """
        self.check()
        if model_type in self._resolution.contested:
            raise conflict_error(model_type, self._resolution.contested[model_type])
        record = self._resolution.providers.get(model_type)
        if record is not None:
            return self._current(record)
        for record in self.records:
            if model_type in record.model_types:
                raise PluginError(
                    f"the adapter {record.origin()} for model_type {model_type!r} is {record.status}: {record.reason}",
                    hint="; ".join((*self.notices, "anyblock doctor shows how to mend it")),
                )
        raise unsupported(model_type, self.model_types)

    def load(self, model_type: str) -> Registered:
        """Import the adapter for this model type and return its descriptor, checked against the contract.

        Raises:
            UnsupportedModelError, PluginError: as `provider`; or the adapter cannot be loaded (`PluginLoadError`).
        """
        return self._load(self.provider(model_type), model_type)

    def extensions(self, model_type: str | None = None) -> list[Registered]:
        """Return core's own plugin and every extension that concerns this model type, sorted by distribution and name.

        Args:
            model_type: None returns every extension, whatever model types it is for.

        An extension that cannot be loaded is left out with a `PluginWarning`, the first time only. One whose attribute
        `model_types` is set concerns only those model types.

        Raises:
            PluginLoadError: strict mode, and an extension cannot be loaded.
        """
        found = [builtins()]
        for record in self.records:
            if record.group != EXTENSIONS_GROUP or record.status is not PluginStatus.READY:
                continue
            for name in record.names:
                known = (record.group, record.distribution, name) in self._loaded
                try:
                    extension = self._load(record, name)
                except PluginLoadError as error:
                    if self.settings.strict:
                        raise
                    if not known:
                        leave_out(record.origin(name), error)
                    continue
                if extension.concerns is None or model_type is None or model_type in extension.concerns:
                    found.append(extension)
        return found

    def load_all(self) -> None:
        """Import every ready plugin, so that `records` says which ones cannot be."""
        for record in self.records:
            if record.status in (PluginStatus.READY, PluginStatus.CONFLICTING):
                for name in record.names:
                    with suppress(PluginLoadError):  # the record says so then
                        self._load(record, name)

    def _load(self, record: PluginRecord, name: str) -> Registered:
        key = (record.group, record.distribution, name)
        with self._lock:
            known = self._loaded.get(key)
            if known is None:
                known = self._loaded[key] = self._fresh(record, name)
                if isinstance(known, PluginLoadError):
                    self._mark(record, name, known)
        if isinstance(known, PluginLoadError):
            raise known.with_traceback(None)
        return known

    def _fresh(self, record: PluginRecord, name: str) -> Registered | PluginLoadError:
        origin = record.origin(name)
        try:
            if (record.group, name) in self._objects:
                plugin = instance_of(self._objects[record.group, name], origin)
            else:
                plugin = load_object(origin, record.group, record.entries[name])
            return admit(plugin, origin)
        except PluginLoadError as error:
            return error

    def _mark(self, record: PluginRecord, name: str, error: PluginLoadError) -> None:
        reason = f"{name}: {error.what}" if len(record.entries) > 1 else error.what
        records = tuple(
            found.marked(PluginStatus.FAILED, reason, location=error.location) if _same(found, record) else found
            for found in self.records
        )
        self._resolution = replace(self._resolution, records=records)

    def _current(self, record: PluginRecord) -> PluginRecord:
        return next(found for found in self.records if _same(found, record))

    def __iter__(self) -> Iterator[PluginRecord]:
        return iter(self.records)


def _same(one: PluginRecord, other: PluginRecord) -> bool:
    return (one.group, one.distribution, one.path) == (other.group, other.distribution, other.path)


def _describe(plugin: object) -> str:
    cls = plugin if isinstance(plugin, type) else type(plugin)
    return f"{cls.__module__}:{cls.__qualname__}"
