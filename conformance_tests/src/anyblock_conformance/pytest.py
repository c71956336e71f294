"""The suite in an adapter's own tests: three lines, from which no check can be left out.

from anyblock_conformance.pytest import conformance_tests

test_conformance = conformance_tests("llama")
"""

from __future__ import annotations

import atexit
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
from anyblock.family import ModelFamily

from anyblock_conformance.levels import Level
from anyblock_conformance.outcome import Outcome, Result
from anyblock_conformance.run import as_family, as_levels
from anyblock_conformance.session import Session
from anyblock_conformance.subject import Subject
from anyblock_conformance.summary import level_result

_LEVEL = "level:"


def conformance_tests(
    adapter: str | ModelFamily | object,
    *,
    model_type: str | None = None,
    expected_failures: Mapping[str, str] | None = None,
    levels: Iterable[Level | str] | None = None,
) -> Callable[[str], None]:
    """Return a test function for pytest with one case for every check, and one for every level.

    The ids of the cases are those of `run_conformance`, whose arguments these are. A level's case fails when too few of
    its checks apply.

    Raises:
        UnsupportedModelError: no installed adapter serves the `model_type`.
        PluginError: the adapter cannot be loaded.
        UsageError: an expected failure with an unknown id or without a reason.
    """
    folder = tempfile.TemporaryDirectory(prefix="anyblock-conformance-")
    atexit.register(folder.cleanup)
    subject = Subject(as_family(adapter, model_type), Path(folder.name))
    session = Session(subject, expected_failures=expected_failures, levels=as_levels(levels))
    ids = [*session.plan, *(f"{_LEVEL}{level}" for level in session.levels)]

    @pytest.mark.parametrize("check", ids, ids=ids)
    def test_conformance(check: str) -> None:
        """Report one check, or what keeps a level from being passed."""
        if check.startswith(_LEVEL):
            level = level_result(session, Level(check.removeprefix(_LEVEL)))
            if level.state == "incomplete":
                pytest.fail(f"level {level.level} is not passed: {level.reason}", pytrace=False)
            return
        _judge(session.result(check))

    return test_conformance


def _judge(result: Result) -> None:
    if result.outcome.is_failure:
        pytest.fail(explain(result), pytrace=False)
    if result.outcome is Outcome.XFAILED:
        pytest.xfail(result.message)
    if result.outcome is Outcome.SKIPPED:
        pytest.skip(result.message)
    if result.outcome in (Outcome.PROVISIONAL, Outcome.UNCLAIMED):
        warnings.warn(f"{result.id}: {result.outcome}: {result.message}", ConformanceWarning, stacklevel=2)


class ConformanceWarning(UserWarning):
    """Something that does not fail a report, and that the adapter's author should know."""


def explain(result: Result) -> str:
    """Return a failed result with everything that helps to mend it."""
    return (
        f"{result.id}: {result.outcome}\n{result.summary}\n\n{result.message}\n\n"
        f"Why it matters: {result.why}\n\nHow to fix: {result.fix}"
    )
