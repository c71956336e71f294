"""Discovery, isolation and checking of plugins. Reading what is installed imports neither torch nor any plugin."""

from anyblock.plugins.collecting import PluginWarning
from anyblock.plugins.known import known_adapters
from anyblock.plugins.loading import PluginLoadError
from anyblock.plugins.registry import PluginRegistry
from anyblock.plugins.relay import HookError, Registered
from anyblock.plugins.settings import PluginSettings
from anyblock.plugins.status import Origin, PluginRecord, PluginStatus

__all__ = [
    "HookError",
    "Origin",
    "PluginLoadError",
    "PluginRecord",
    "PluginRegistry",
    "PluginSettings",
    "PluginStatus",
    "PluginWarning",
    "Registered",
    "known_adapters",
]
