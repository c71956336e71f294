"""What discovery knows about a plugin: a record for each distribution and group, with a status and a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Self

from anyblock.contract.hookspecs import FAMILIES_GROUP


class PluginStatus(StrEnum):
    """Where a plugin stands; only `READY` ones are used."""

    READY = "ready"
    """Nothing speaks against it (or, after loading, it was loaded)."""
    BLOCKED = "blocked"
    """Switched off by an allow-list, a deny-list or a preference; no fault."""
    INCOMPATIBLE = "incompatible"
    """It wants another version of core."""
    FAILED = "failed"
    """Its metadata is broken, or it could not be loaded."""
    CONFLICTING = "conflicting"
    """Another distribution claims the same `model_type`."""


@dataclass(frozen=True)
class Origin:
    """Where an object comes from: the distribution, its version, and the entry point's name."""

    distribution: str
    version: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".strip()


@dataclass(frozen=True)
class PluginRecord:
    """One distribution's registrations in one entry-point group.

    Attributes:
        distribution: the name as its metadata spells it.
        version: its version; empty when the metadata has none.
        group: the entry-point group.
        entries: `{entry-point name: "module:attribute"}`.
        requires_core: the range of core versions it wants, for instance `>=0.1,<1`; empty means any.
        status: see `PluginStatus`.
        reason: why it is not ready; empty when it is.
        location: `file:line` of the fault when there is one in the plugin's code.
        contested: the `model_type`s of its that another distribution claims too.
        path: the folder that holds its metadata; empty for a plugin given in a test.
        requirements: its other run-time requirements that apply to this environment, as they are written.
        duplicates: folders of further metadata of the same distribution, which are not used.
    """

    distribution: str
    version: str
    group: str
    entries: Mapping[str, str]
    requires_core: str = ""
    status: PluginStatus = PluginStatus.READY
    reason: str = ""
    location: str = ""
    contested: tuple[str, ...] = ()
    path: str = ""
    requirements: tuple[str, ...] = field(default=(), repr=False)
    duplicates: tuple[str, ...] = field(default=(), repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The entry-point names, sorted."""
        return tuple(sorted(self.entries))

    @property
    def model_types(self) -> tuple[str, ...]:
        """The `model_type`s it serves; empty for an extension."""
        return self.names if self.group == FAMILIES_GROUP else ()

    @property
    def faulty(self) -> bool:
        """Whether something is wrong with it, as opposed to ready or switched off on purpose."""
        return self.status not in (PluginStatus.READY, PluginStatus.BLOCKED)

    def origin(self, name: str = "") -> Origin:
        """Return the origin of its entry point `name`."""
        return Origin(self.distribution, self.version, name)

    def marked(self, status: PluginStatus, reason: str, *, location: str = "") -> Self:
        """Return a copy with this status and reason."""
        return replace(self, status=status, reason=reason, location=location)

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form that `anyblock families --json` prints."""
        return {
            "distribution": self.distribution,
            "version": self.version,
            "group": self.group,
            "names": list(self.names),
            "model_types": list(self.model_types),
            "requires_core": self.requires_core,
            "status": str(self.status),
            "reason": self.reason,
            "location": self.location,
        }
