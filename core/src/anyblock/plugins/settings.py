"""Which plugins may be used: the allow-list, the deny-list, preferences and strict mode."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

ALLOW_VARIABLE: Final = "ANYBLOCK_PLUGINS"
"""Environment variable: the only distributions that may be used, separated by commas; set but empty means none."""
DENY_VARIABLE: Final = "ANYBLOCK_DISABLE_PLUGINS"
"""Environment variable: distributions that may not be used, separated by commas; `*` means all."""
PREFER_VARIABLE: Final = "ANYBLOCK_PREFER"
"""Environment variable: `model_type=distribution,...`, which adapter to use where several claim a `model_type`."""
STRICT_VARIABLE: Final = "ANYBLOCK_STRICT_PLUGINS"
"""Environment variable: any fault of any plugin is an error; `0`, `false`, `no`, `off` and empty mean no."""


def normalized(name: str) -> str:
    """Return a distribution's name as package indexes compare it (`Any_Block.X` is `any-block-x`)."""
    from packaging.utils import canonicalize_name

    return canonicalize_name(name.strip())


@dataclass(frozen=True)
class PluginSettings:
    """What the user allows.

    Attributes:
        allow: normalised names of the only distributions that may be used; None allows all.
        deny: normalised names that may not be used; `*` denies all.
        prefer: `{model_type: normalised distribution}` for contested model types.
        strict: whether any fault is an error.
        malformed: parts of `prefer` that could not be read, for a notice.
    """

    allow: frozenset[str] | None = None
    deny: frozenset[str] = frozenset()
    prefer: Mapping[str, str] = field(default_factory=dict)
    strict: bool = False
    malformed: tuple[str, ...] = ()

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read the settings from the environment (`os.environ` by default)."""
        env = os.environ if environ is None else environ
        allow = env.get(ALLOW_VARIABLE)
        prefer, malformed = _preferences(_items(env.get(PREFER_VARIABLE, "")))
        return cls(
            allow=None if allow is None else _names(allow),
            deny=_names(env.get(DENY_VARIABLE, "")),
            prefer=prefer,
            strict=env.get(STRICT_VARIABLE, "").strip().lower() not in ("", "0", "false", "no", "off"),
            malformed=malformed,
        )

    def preferring(self, prefer: Mapping[str, str]) -> Self:
        """Return a copy in which these preferences come before those already here."""
        from dataclasses import replace

        added = {model_type: normalized(distribution) for model_type, distribution in prefer.items()}
        return replace(self, prefer={**self.prefer, **added})

    def why_blocked(self, distribution: str) -> str:
        """Return why this distribution may not be used, or `""`."""
        name = normalized(distribution)
        if "*" in self.deny:
            return f"{DENY_VARIABLE} switches every plugin off"
        if name in self.deny:
            return f"named in {DENY_VARIABLE}"
        if self.allow is not None and name not in self.allow:
            return f"not named in {ALLOW_VARIABLE}"
        return ""


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _names(text: str) -> frozenset[str]:
    return frozenset(item if item == "*" else normalized(item) for item in _items(text))


def _preferences(items: Iterable[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    prefer: dict[str, str] = {}
    malformed = []
    for item in items:
        model_type, equals, distribution = item.partition("=")
        if equals and model_type.strip() and distribution.strip():
            prefer[model_type.strip()] = normalized(distribution)
        else:
            malformed.append(item)
    return prefer, tuple(malformed)
