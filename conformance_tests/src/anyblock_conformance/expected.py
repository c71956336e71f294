"""Failures that an adapter announces, each with a reason."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from anyblock.errors import UsageError, nearest

from anyblock_conformance.check import base_id

_EMPTY: Final = re.compile(
    r"[\W_]*(to-?do|tbd|fix ?me|xxx|wip|later|none|null|n/?a|unknown|reason|skip|xfail|known|broken|fails?)?[\W_]*",
    re.IGNORECASE,
)
_BEGIN: Final = re.compile(r"[\W_]*(to-?do|tbd|fix ?me|xxx)\b", re.IGNORECASE)


def check_expected_failures(expected: Mapping[str, str], known: Iterable[str]) -> dict[str, str]:
    """Return announced failures, `{result id: reason}`, after looking at every one.

    Args:
        expected: as the adapter's author gives them.
        known: the ids of all results of the suite for this adapter, whether or not they are run now.

    Raises:
        UsageError: an id that the suite does not have, or a reason that is none.
    """
    ids = list(known)
    for identifier, reason in expected.items():
        if identifier not in ids:
            cases = [name for name in ids if base_id(name) == identifier]
            hint = f"name the case: {', '.join(cases)}" if cases else nearest(str(identifier), ids)
            raise UsageError(
                f"an expected failure is announced for {identifier!r}, which is not a check",
                expected="a check's id",
                hint=hint,
            )
        if not isinstance(reason, str) or _EMPTY.fullmatch(reason) or _BEGIN.match(reason):
            raise UsageError(
                f"the expected failure of {identifier} has the reason {reason!r}",
                expected="a sentence that says why it fails",
                hint="say what the adapter or transformers cannot do, and link the issue",
            )
    return dict(expected)
