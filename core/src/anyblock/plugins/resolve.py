"""Decide each plugin's status from its metadata and the settings alone: blocked, incompatible, conflicting or ready."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Final

from anyblock.contract.hookspecs import FAMILIES_GROUP
from anyblock.errors import PluginError, nearest
from anyblock.plugins.requirements import accepts, core_is_too_old
from anyblock.plugins.settings import ALLOW_VARIABLE, DENY_VARIABLE, PREFER_VARIABLE, PluginSettings, normalized
from anyblock.plugins.status import PluginRecord, PluginStatus


@dataclass(frozen=True)
class Resolution:
    """What may be used.

    Attributes:
        records: every record with its final status, in the order given.
        providers: `{model_type: record}` for each model type that exactly one usable plugin serves.
        contested: `{model_type: records}` for each model type that several claim and no preference decides.
        notices: what is odd about the settings themselves.
    """

    records: tuple[PluginRecord, ...]
    providers: Mapping[str, PluginRecord]
    contested: Mapping[str, tuple[PluginRecord, ...]]
    notices: tuple[str, ...]


def resolve(records: Sequence[PluginRecord], settings: PluginSettings, core_version: str) -> Resolution:
    """Give every record its status; a plugin that is out for another reason clashes with no other."""
    judged = [_judge(record, settings, core_version) for record in records]
    claims: dict[str, list[int]] = {}
    for index, record in enumerate(judged):
        if record.status is PluginStatus.READY:
            for model_type in record.model_types:
                claims.setdefault(model_type, []).append(index)
    providers: dict[str, int] = {}
    contested: dict[str, tuple[int, ...]] = {}
    passed_over: dict[int, list[str]] = {}
    for model_type, indices in sorted(claims.items()):
        wanted = settings.prefer.get(model_type)
        chosen = [index for index in indices if normalized(judged[index].distribution) == wanted] or indices
        if len(chosen) > 1:
            contested[model_type] = tuple(indices)
            continue
        providers[model_type] = chosen[0]
        for index in indices:
            if index != chosen[0]:
                passed_over.setdefault(index, []).append(model_type)
    before = tuple(judged)
    for index, model_types in passed_over.items():
        judged[index] = _passed_over(before[index], model_types, [before[providers[name]] for name in model_types])
    for index in sorted({index for indices in contested.values() for index in indices}):
        mine = {name: [before[other] for other in indices] for name, indices in contested.items() if index in indices}
        marked = before[index].marked(PluginStatus.CONFLICTING, _conflict(before[index], mine))
        judged[index] = replace(marked, contested=tuple(mine))
    return Resolution(
        records=tuple(judged),
        providers={name: judged[index] for name, index in providers.items()},
        contested={name: tuple(judged[index] for index in indices) for name, indices in contested.items()},
        notices=_notices(judged, settings, claims),
    )


def conflict_error(model_type: str, records: Iterable[PluginRecord]) -> PluginError:
    """Return the error for asking for a contested model type; it names every claimant and the ways out."""
    names = [str(record.origin()) for record in records]
    return PluginError(
        f"model_type {model_type!r} is claimed by {' and by '.join(names)}",
        expected="one adapter for each model_type",
        hint=_remedy(model_type, [record.distribution for record in records]),
    )


def _judge(record: PluginRecord, settings: PluginSettings, core_version: str) -> PluginRecord:
    blocked = settings.why_blocked(record.distribution)
    if blocked:
        return record.marked(PluginStatus.BLOCKED, blocked)
    if record.status is PluginStatus.READY and not accepts(record.requires_core, core_version):
        old = core_is_too_old(record.requires_core, core_version)
        remedy = f"'anyblock{record.requires_core}'" if old else f"--upgrade {record.distribution}"
        return record.marked(
            PluginStatus.INCOMPATIBLE,
            f"wants anyblock{record.requires_core}, and {core_version} is installed: pip install {remedy}",
        )
    return record


def _passed_over(record: PluginRecord, model_types: Sequence[str], chosen: Sequence[PluginRecord]) -> PluginRecord:
    reason = "; ".join(
        f"{PREFER_VARIABLE} prefers {winner.origin()} for {model_type}"
        for model_type, winner in zip(model_types, chosen, strict=True)
    )
    whole = set(model_types) == set(record.model_types)
    return record.marked(PluginStatus.BLOCKED if whole else record.status, reason)


def _conflict(record: PluginRecord, contested: Mapping[str, Sequence[PluginRecord]]) -> str:
    parts = []
    for model_type, claimants in contested.items():
        others = " and ".join(str(other.origin()) for other in claimants if other is not record)
        remedy = _remedy(model_type, [claimant.distribution for claimant in claimants])
        parts.append(f"{model_type} is also claimed by {others}; {remedy}")
    return "; ".join(parts)


def _remedy(model_type: str, distributions: Sequence[str]) -> str:
    name = sorted(distributions)[0]
    return f"choose one ({PREFER_VARIABLE}={model_type}={name}), or uninstall the other"


_SHOWN: Final = 3


def _notices(
    records: Sequence[PluginRecord], settings: PluginSettings, claims: Mapping[str, Sequence[int]]
) -> tuple[str, ...]:
    installed = {normalized(record.distribution): record for record in records}
    notices = [f"{PREFER_VARIABLE} has {item!r}; expected model_type=distribution" for item in settings.malformed]
    for variable, names in ((ALLOW_VARIABLE, settings.allow or ()), (DENY_VARIABLE, settings.deny)):
        absent = sorted(set(names) - {"*", *installed})
        notices += [f"{variable} names {name}, which is not installed{_suggestion(name, installed)}" for name in absent]
    for model_type, name in sorted(settings.prefer.items()):
        here = [normalized(records[index].distribution) for index in claims.get(model_type, ())]
        if name not in here:
            serving = f"; it is served by {', '.join(sorted(here)[:_SHOWN])}" if here else ""
            if near := nearest(model_type, claims, count=1) if not here else "":
                serving = f"; {near}"
            notices.append(
                f"{PREFER_VARIABLE} prefers {name} for {model_type}, which it does not serve here"
                f"{serving}{'' if name in installed else _suggestion(name, installed)}"
            )
    return tuple(notices)


def _suggestion(name: str, installed: Mapping[str, PluginRecord]) -> str:
    serving = [key for key, record in installed.items() if record.group == FAMILIES_GROUP and name in record.names]
    if not serving:
        # Without their common beginning, for otherwise every adapter is near every other.
        bare = {key.removeprefix("anyblock-"): key for key in sorted(installed)}
        serving = [bare[near] for near in get_close_matches(name.removeprefix("anyblock-"), bare, n=1, cutoff=0.6)]
    return f"; did you mean {sorted(serving)[0]!r}?" if serving else ""
