"""Holding an inferred family to the conformance suite before it is written: what fails is claimed no longer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any, Final

from anyblock.contract.capabilities import CAPABILITIES
from anyblock.errors import PluginError
from anyblock.progress import SILENT, Progress

from anyblock_new_family.introspection.descriptor import inferred_model_family
from anyblock_new_family.introspection.facts import InferredFamily

Run = Callable[..., Any]
_SUITE: Final = "anyblock-conformance"
_SUITES_GROUP: Final = "anyblock.suites"
"""Entry-point group of the function that runs the suite: it takes a `ModelFamily` and returns a report that has `to_dict`."""
_NEEDED_BY: Mapping[str, tuple[str, ...]] = {"convert": tuple(CAPABILITIES), "build": ("search",)}
"""What cannot hold without a capability."""


@dataclass(frozen=True)
class Verified:
    """An inferred family after the suite.

    Attributes:
        inferred: the family; what failed is among its `not_implemented` capabilities, with the check and what it found.
        report: the last report as plain data; None where the suite is not installed.
    """

    inferred: InferredFamily
    report: Mapping[str, Any] | None

    @property
    def failures(self) -> list[Mapping[str, Any]]:
        """The results that make the report fail."""
        return [] if self.report is None else [r for r in self.report["results"] if _failed(r)]


def verified(inferred: InferredFamily, *, progress: Progress = SILENT) -> Verified:
    """Run the conformance suite on an inferred family, and again without the claims that failed, until all hold.

    A check that is about no single capability takes every claim with it: nothing is known to hold then. Without the suite
    the family comes back as it is.
    """
    try:
        run = _suite()
    except PluginError as error:
        progress.note(f"what is claimed rests on introspection's own trials: {error}")
        return Verified(inferred, None)
    while True:
        family = inferred_model_family(inferred)
        report = run(family, progress=progress).to_dict()
        claimed = {name for name, capability in family.capabilities().items() if capability}
        false = false_claims(report["results"], claimed)
        if not false:
            levels = {level["level"]: level["state"] == "passed" for level in report["levels"]}
            return Verified(replace(inferred, levels=levels), report)
        inferred = inferred.without(false)


def _suite() -> Run:
    """Return the function that runs the suite.

    Raises:
        PluginError: it is not installed.
    """
    try:
        found: Run = distribution(_SUITE).entry_points.select(group=_SUITES_GROUP)["conformance"].load()
    except (PackageNotFoundError, KeyError) as error:
        raise PluginError(
            "the conformance suite is not installed",
            expected=f"the distribution {_SUITE}, with an entry point in {_SUITES_GROUP}",
            hint=f"python -m pip install --upgrade {_SUITE}",
        ) from error
    return found


def false_claims(results: list[Mapping[str, Any]], claimed: set[str]) -> dict[str, str]:
    """Return the claimed capabilities that a report contradicts, each with the first check that does."""
    found: dict[str, str] = {}
    for result in filter(_failed, results):
        own = result["capability"]
        names = tuple(CAPABILITIES) if own not in CAPABILITIES else (own, *_NEEDED_BY.get(own, ()))
        for name in names:
            if name in claimed:
                found.setdefault(name, f"{result['id']}: {_short(result['message'])}")
    return found


def _failed(result: Mapping[str, Any]) -> bool:
    return result["outcome"] in ("failed", "false claim", "unexpected pass")


def _short(message: str) -> str:
    """Return a message as one line that is the same in every run: paths of temporary folders are left out."""
    line = " ".join(re.sub(r"\S*anyblock-(?:conformance|tiny)-\w+/", "", message).split())
    return line if len(line) <= 160 else f"{line[:160].rpartition(' ')[0]} …"
