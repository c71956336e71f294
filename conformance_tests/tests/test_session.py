"""How results come about: capabilities, announced failures, dependencies, provisional checks, counts and levels."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from anyblock.contract.capabilities import CAPABILITIES, Capability, Support
from anyblock.errors import UsageError
from anyblock_conformance import __version__
from anyblock_conformance.check import check, check_of
from anyblock_conformance.expect import NotApplicableError, fail
from anyblock_conformance.levels import Level
from anyblock_conformance.outcome import Outcome
from anyblock_conformance.run import finish
from anyblock_conformance.session import Session, is_provisional
from anyblock_conformance.summary import capability_results, level_result
from hypothesis import given, settings
from hypothesis import strategies as st

THIS = ".".join(__version__.split(".")[:2])


def passing(subject, *case):
    """x"""


def failing(subject, *case):
    fail("found 3, expected 4")


def crashing(subject, *case):
    raise RuntimeError("no such thing")


def pointless(subject, *case):
    raise NotApplicableError("there is nothing to check")


def make(identifier, behaviour, **options):
    def function(*arguments):
        behaviour(*arguments)

    function.__doc__ = "A rule.\n\nWhy: a reason.\n\nHow to fix: a way."
    return check_of(check(identifier, **options)(function))


def subject(scope="tiny", **declared):
    capabilities = {name: Capability(Support.UNKNOWN) for name in CAPABILITIES} | declared
    family = SimpleNamespace(
        capabilities=lambda: capabilities, model_type="toy", distribution="anyblock-toy", version="1.2", descriptor=None
    )
    alone = None if scope == "tiny" else subject(**declared)
    return SimpleNamespace(scope=scope, family=family, alone=alone)


def session(*checks, scope="tiny", expected=None, levels=None, declared=None):
    return Session(subject(scope, **(declared or {})), checks=checks, expected_failures=expected, levels=levels)


def outcome(behaviour, **options):
    declared = options.pop("declared", None)
    expected = options.pop("expected", None)
    result = session(make("build.a", behaviour, **options), declared=declared, expected=expected).result("build.a")
    return result.outcome, result.message


def test_a_check_passes_or_fails_with_its_message():
    assert outcome(passing) == (Outcome.PASSED, "")
    assert outcome(failing) == (Outcome.FAILED, "found 3, expected 4")


def test_whatever_an_adapter_raises_is_a_failure_with_its_place():
    found, message = outcome(crashing)
    assert found is Outcome.FAILED
    assert message.startswith("RuntimeError: no such thing")
    assert "in crashing" in message


def test_a_check_that_does_not_apply_is_skipped_with_the_reason():
    assert outcome(pointless) == (Outcome.SKIPPED, "there is nothing to check")


@pytest.mark.parametrize("support", [Support.FULL, Support.PARTIAL])
def test_a_claimed_capability_that_does_not_work_is_a_false_claim(support):
    declared = {"kv_heads": Capability(support, "for plain attention")}
    assert outcome(passing, capability="kv_heads", declared=declared)[0] is Outcome.PASSED
    found, message = outcome(failing, capability="kv_heads", declared=declared)
    assert found is Outcome.FALSE_CLAIM
    assert message == f"found 3, expected 4\nthe capability kv_heads is declared as {support} (for plain attention)"


@pytest.mark.parametrize("support", [Support.UNKNOWN, Support.UNSUPPORTED, Support.NOT_IMPLEMENTED])
def test_an_unclaimed_capability_that_works_is_reported_and_one_that_does_not_is_skipped(support):
    declared = {"kv_heads": Capability(support)}
    found, message = outcome(passing, capability="kv_heads", declared=declared)
    assert found is Outcome.UNCLAIMED
    assert f"declared as {support}" in message
    assert outcome(failing, capability="kv_heads", declared=declared) == (
        Outcome.SKIPPED,
        f"the capability kv_heads is declared as {support}",
    )


def test_a_kind_that_core_does_not_know_needs_no_claim():
    assert outcome(failing, capability="extra_kind")[0] is Outcome.FAILED


def test_an_announced_failure_is_expected_and_a_pass_then_is_a_failure():
    reason = "transformers 5.23 counts positions wrongly here, see issue 17"
    found, message = outcome(failing, expected={"build.a": reason})
    assert found is Outcome.XFAILED
    assert reason in message
    assert "found 3, expected 4" in message
    found, message = outcome(passing, expected={"build.a": reason})
    assert found is Outcome.UNEXPECTED_PASS
    assert found.is_failure
    assert reason in message


@pytest.mark.parametrize(
    "reason",
    [
        "",
        " ",
        "todo",
        "TODO",
        "ToDo: look at it",
        "fixme",
        "FIXME later",
        "xxx",
        "tbd",
        "n/a",
        "-",
        "...",
        "?",
        None,
        3,
    ],
)
def test_a_reason_that_is_none_is_refused(reason):
    with pytest.raises(UsageError, match=r"build\.a has the reason"):
        outcome(failing, expected={"build.a": reason})


def test_an_announced_failure_of_an_unknown_check_is_refused_with_the_nearest_id():
    with pytest.raises(UsageError, match=r"did you mean 'build\.a'"):
        outcome(failing, expected={"build.b": "a good and long reason"})


def test_an_announced_failure_names_the_case():
    checks = [make("build.a", failing, cases=lambda _: ["one", "two"])]
    with pytest.raises(UsageError, match=r"build\.a\[one\], build\.a\[two\]"):
        session(*checks, expected={"build.a": "a good and long reason"})
    found = session(*checks, expected={"build.a[two]": "a good and long reason"})
    assert [result.outcome for result in found.results()] == [Outcome.FAILED, Outcome.XFAILED]


def test_announced_failures_of_levels_that_are_not_run_are_no_mistake():
    found = session(make("build.a", failing), expected={"build.a": "a good and long reason"}, levels=[Level.PRUNE])
    assert found.results() == []


def test_a_check_is_skipped_when_one_that_it_depends_on_fails_directly_or_not():
    checks = [
        make("build.a", failing),
        make("build.b", passing, depends_on=["build.a"]),
        make("build.c", passing, depends_on=["build.b"]),
    ]
    results = session(*checks).results()
    assert [result.outcome for result in results] == [Outcome.FAILED, Outcome.SKIPPED, Outcome.SKIPPED]
    assert results[1].message == results[2].message == "not run because of build.a: failed"
    assert [result.outcome for result in Session(subject(), checks=checks, blocking=False).results()[1:]] == [
        Outcome.PASSED
    ] * 2


def test_a_case_depends_on_the_same_case():
    def only_two(_, case):
        if case == "one":
            fail("one fails")

    options = {"cases": lambda _: ["one", "two"]}
    checks = [make("build.a", only_two, **options), make("build.b", passing, depends_on=["build.a"], **options)]
    outcomes = {result.id: result.outcome for result in session(*checks).results()}
    assert outcomes["build.b[one]"] is Outcome.SKIPPED
    assert outcomes["build.b[two]"] is Outcome.PASSED


def test_dependencies_run_first_whatever_is_asked_for_first_and_each_check_runs_once():
    ran = []
    checks = [
        make("build.a", lambda _: ran.append("a")),
        make("build.b", lambda _: ran.append("b"), depends_on=["build.a"]),
    ]
    found = session(*checks)
    found.result("build.b")
    found.results()
    assert ran == ["a", "b"]


def test_a_new_check_is_provisional_for_one_minor_version():
    found, message = outcome(failing, new_in=THIS)
    assert found is Outcome.PROVISIONAL
    assert not found.is_failure
    assert "found 3, expected 4" in message
    assert outcome(failing, new_in="0.0")[0] is Outcome.FAILED
    new = make("build.a", failing, new_in="0.2")
    assert [is_provisional(new, version) for version in ("0.1.9", "0.2.0", "0.2.7", "0.3.0")] == [
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("scope", "ran"),
    [("tiny", ["headers", "weights", "tiny"]), ("weights", ["headers", "weights"]), ("headers", ["headers"])],
)
def test_a_checkpoint_is_asked_only_what_it_can_answer(scope, ran):
    checks = [make(f"build.{needs}", passing, needs=needs) for needs in ("headers", "weights", "tiny")]
    results = session(*checks, scope=scope).results()
    assert [result.id.partition(".")[2] for result in results if result.outcome is Outcome.PASSED] == ran
    assert all(result.message for result in results if result.outcome is Outcome.SKIPPED)


def test_a_level_of_which_too_little_applies_is_not_passed():
    few = session(*[make(f"build.c{i}", passing if i < 3 else pointless) for i in range(12)], levels=["build"])
    found = level_result(few, Level.BUILD)
    assert (found.state, found.passed, found.floor) == ("incomplete", 3, 6)
    assert "only 3 of 12" in found.reason
    assert not finish(few, subject="toy", command="").passed
    enough = session(*[make(f"build.c{i}", passing if i < 6 else pointless) for i in range(12)], levels=["build"])
    assert level_result(enough, Level.BUILD).state == "passed"
    assert finish(enough, subject="toy", command="").passed


def test_a_level_without_any_check_is_not_passed():
    assert level_result(session(make("build.a", passing)), Level.PRUNE).state == "incomplete"


def test_a_level_with_a_failure_is_failed_and_one_out_of_scope_is_not_run():
    checks = [make(f"build.c{i}", passing) for i in range(8)]
    assert level_result(session(*checks, make("build.z", failing)), Level.BUILD).state == "failed"
    assert level_result(session(*checks, scope="headers"), Level.BUILD).state == "not run"


def test_announced_failures_do_not_count_towards_the_floor():
    checks = [make(f"build.c{i}", failing) for i in range(8)]
    expected = {found.id: "a good and long reason" for found in checks}
    assert level_result(session(*checks, expected=expected), Level.BUILD).state == "incomplete"


BEHAVIOURS = {"passing": passing, "failing": failing, "crashing": crashing, "pointless": pointless}


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(BEHAVIOURS)),
            st.sampled_from([None, "kv_heads", "query_groups"]),
            st.sampled_from(["headers", "weights", "tiny"]),
            st.sampled_from([None, THIS, "0.0"]),
            st.booleans(),
        ),
        max_size=8,
    ),
    st.sampled_from(["tiny", "weights", "headers"]),
    st.sampled_from(list(Support)),
)
def test_every_planned_check_is_in_exactly_one_count(rows, scope, support):
    checks, expected = [], {}
    for number, (behaviour, capability, needs, new_in, announced) in enumerate(rows):
        before = [checks[-1].id] if checks and number % 2 else []
        options = {"capability": capability, "needs": needs, "new_in": new_in, "depends_on": before}
        checks.append(make(f"build.c{number}", BEHAVIOURS[behaviour], **options))
        if announced:
            expected[f"build.c{number}"] = "a good and long reason"
    found = session(*checks, scope=scope, expected=expected, declared={"kv_heads": Capability(support, "a condition")})
    report = finish(found, subject="toy", command="")
    counts = report.counts
    assert counts["planned"] == len(checks) == sum(counts[str(outcome)] for outcome in Outcome)
    assert counts["ran"] == counts["planned"] - counts["skipped"]
    assert all(result.message for result in report.results if result.outcome is not Outcome.PASSED)
    assert report.passed <= (not report.failures)


def test_capabilities_are_shown_as_declared_and_as_seen():
    declared = {
        "kv_heads": Capability(Support.FULL),
        "query_groups": Capability(Support.FULL),
        "hidden_size": Capability(Support.NOT_IMPLEMENTED),
        "build": Capability(Support.PARTIAL, "without windows"),
    }
    checks = [
        make("prune.a", passing, capability="kv_heads"),
        make("prune.b", failing, capability="query_groups"),
        make("prune.c", passing, capability="hidden_size"),
    ]
    found = {entry.name: entry for entry in capability_results(session(*checks, declared=declared))}
    assert found["kv_heads"].verdict == "confirmed"
    assert found["query_groups"].verdict == "false claim"
    assert (found["hidden_size"].declared, found["hidden_size"].verdict) == ("not implemented", "works, not declared")
    assert (found["build"].note, found["build"].verdict) == ("without windows", "not tested")
    assert set(found) == set(CAPABILITIES)
