"""Errors that say what failed, what was expected, and what to do.

Every class derives from `AnyBlockError`, so a caller can catch one type. `InputError` and its subclasses mean that the
caller's input cannot be used (the command line exits with 2); every other `AnyBlockError` means that the work failed (1).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AnyBlockError(Exception):
    """A failure with a remedy.

    Args:
        what: what failed, naming the file, tensor, plugin or key.
        expected: what would have been accepted; empty when `what` already says it.
        hint: what to do next; empty when there is nothing to advise.
    """

    def __init__(self, what: str, *, expected: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.expected = expected
        self.hint = hint

    def __str__(self) -> str:
        parts = [self.what]
        if self.expected:
            parts.append(f"expected: {self.expected}")
        if self.hint:
            parts.append(f"to do: {self.hint}")
        return "\n".join(parts)

    def in_one_line(self) -> str:
        """Return the whole error on one line, for a list of several."""
        parts = (self.what, f"expected {self.expected}" if self.expected else "", self.hint)
        return "; ".join(part for part in parts if part)


class InputError(AnyBlockError):
    """The input cannot be used as it is."""


class UsageError(InputError):
    """An option, key or argument is wrong."""


class ConfigError(InputError):
    """A configuration file or a `config.json` is missing, malformed or inconsistent."""


class CheckpointError(InputError):
    """A checkpoint's files are missing, damaged or do not agree with one another."""


class OutputExistsError(InputError):
    """The output is there already and was not to be overwritten."""


class BudgetError(InputError):
    """No child can keep the budget; the message says what the smallest reachable value is."""


class UnsupportedModelError(InputError):
    """No installed adapter serves this model, or the adapter cannot do what was asked."""


class PluginError(AnyBlockError):
    """A plugin is broken, incompatible, blocked or in conflict with another one."""


class ExecutionError(AnyBlockError):
    """A computation failed: out of memory, numbers that are not finite, a stage that cannot continue."""


class NotFiniteError(ExecutionError):
    """A computation gave NaN or infinite numbers. Whoever compares children or trains one drops what gave them."""


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """Return a phrase such as `did you mean 'a' or 'b'?`, or `""` when nothing is near."""
    matches = difflib.get_close_matches(name, sorted(known), n=count, cutoff=0.6)
    if not matches:
        return ""
    return "did you mean " + " or ".join(repr(match) for match in matches) + "?"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether this is how torch says that memory is short: on the CPU it is a plain `RuntimeError`."""
    text = str(error).lower()
    phrases = ("allocate memory", "out of memory")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(part in text for part in phrases))
