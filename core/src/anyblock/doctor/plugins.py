"""The plugins: each one's status after an attempt to load it, and the command that mends what is wrong."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from anyblock.doctor.finding import Examined, pip
from anyblock.doctor.packages import unmet
from anyblock.plugins import PluginRecord, PluginRegistry, PluginSettings, PluginStatus
from anyblock.plugins.requirements import core_is_too_old
from anyblock.plugins.settings import PREFER_VARIABLE


def examine_plugins(registry: PluginRegistry | None = None) -> Examined:
    """Load every usable plugin and say how to mend each that has a fault."""
    section = Examined("Plugins")
    settings = PluginSettings.from_env()
    found = PluginRegistry.discover(settings) if registry is None else registry
    with contextlib.redirect_stdout(sys.stderr):
        found.load_all()
    section.facts["plugins"] = [record.to_dict() for record in found.records]
    for record in found.records:
        if record.faulty:
            section.wrong(f"{record.origin()} is {record.status}: {record.reason}", _remedy(record, found.core_version))
        if record.status is not PluginStatus.BLOCKED:
            for requirement, fault in unmet(record.requirements):
                section.wrong(f"{record.origin()} needs {requirement}, {fault}", pip("install", str(requirement)))
        if here := [other for other in record.duplicates if Path(other).parent == Path(record.path).parent]:
            section.wrong(
                f"{record.origin()} is installed over an older version of itself: {', '.join(here)}",
                pip("install", "--force-reinstall", "--no-deps", record.distribution),
            )
    for notice in found.notices:
        section.wrong(notice, f"unset {notice.partition(' ')[0]}")
    if not found.records:
        section.wrong("no adapter is installed", pip("install", "anyblock-llama"))
    return section


def _remedy(record: PluginRecord, core_version: str) -> str:
    if record.status is PluginStatus.INCOMPATIBLE:
        if core_is_too_old(record.requires_core, core_version):
            return pip("install", f"anyblock{record.requires_core}")
        return pip("install", "--upgrade", record.distribution)
    if record.status is PluginStatus.CONFLICTING:
        return f"export {PREFER_VARIABLE}=" + ",".join(f"{name}={record.distribution}" for name in record.contested)
    return pip("install", "--upgrade", "--force-reinstall", record.distribution)
