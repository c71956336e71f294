"""Reports as table, JSON, page, badge, and the difference between two."""

from __future__ import annotations

import html.parser
import json
from dataclasses import replace

import pytest
from anyblock.errors import InputError
from anyblock_conformance.levels import Level
from anyblock_conformance.outcome import Outcome, Result
from anyblock_conformance.report.badge import badge
from anyblock_conformance.report.diff import diff_view, differences
from anyblock_conformance.report.files import json_text, read_report, write_text
from anyblock_conformance.report.html import html_report
from anyblock_conformance.report.model import CapabilityResult, LevelResult, Report
from anyblock_conformance.report.table import count_line, report_view
from rich.console import Console

EVIL = "<script>alert('x')</script> & \"quoted\" [bold]not markup[/bold]"


def result(identifier, outcome=Outcome.PASSED, message="", capability=None):
    return Result(identifier, Level.BUILD, outcome, message, "A rule.", "A reason.", "A way.", capability, 0.5)


def report(*results, **changes):
    levels = [
        LevelResult(Level.BUILD, changes.pop("state", "passed"), 7, 6, 9),
        LevelResult(Level.PRUNE, "passed", 6, 6, 6),
    ]
    capabilities = [CapabilityResult("kv_heads", changes.pop("declared", "full"), "", "confirmed")]
    versions = {"anyblock": "0.1.0", "anyblock-toy": "1.2", "torch": "2.13.0"}
    made = Report("toy", "toy", "tiny", "anyblock conformance toy", versions, results, levels, capabilities, 1.25)
    return replace(made, **changes)


ALL = [result(f"build.{outcome.name.lower()}", outcome, f"message of {outcome}") for outcome in Outcome]


def shown(view):
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(view)
    return console.export_text()


def test_json_comes_back_as_it_was():
    made = report(*ALL)
    again = Report.from_dict(json.loads(json_text(made.to_dict())))
    assert again.to_dict() == made.to_dict()
    assert list(again.results) == list(made.results)


def test_json_has_everything_to_reproduce_it():
    data = report(*ALL).to_dict()
    assert data["command"] == "anyblock conformance toy"
    assert data["versions"]["anyblock-toy"] == "1.2"
    assert data["counts"]["planned"] == len(Outcome)
    assert data["counts"]["ran"] == len(Outcome) - 1
    assert data["levels"][0]["reason"] == "7 of 9 checks passed"
    assert not data["passed"]


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_report_passes_unless_something_failed(outcome):
    assert report(result("build.a", outcome)).passed == (
        outcome not in (Outcome.FAILED, Outcome.FALSE_CLAIM, Outcome.UNEXPECTED_PASS)
    )


@pytest.mark.parametrize(
    ("state", "passed"), [("passed", True), ("failed", False), ("incomplete", False), ("not run", True)]
)
def test_a_report_passes_when_its_levels_do(state, passed):
    assert report(result("build.a"), state=state).passed == passed


def test_a_report_of_nothing_is_not_passed():
    assert not report(levels=[]).passed
    assert not report(levels=[LevelResult(Level.BUILD, "not run", 0, 0, 3)]).passed


def test_the_table_shows_failures_in_full_and_states_all_counts():
    text = shown(report_view(report(*ALL, subject=EVIL, command=EVIL)))
    for name in ("planned", "ran", "passed", "failed", "xfailed", "skipped"):
        assert name in text
    assert "message of false claim" in text
    assert text.count("How to fix: A way.") == 3
    assert "[bold]not markup[/bold]" in text
    assert "message of skipped" in text
    assert "conformance: not passed" in text


def test_counts_that_are_asked_for_are_always_stated():
    line = count_line(report(result("build.a")))
    assert line.startswith("1 checks planned, 1 ran: 1 passed, 0 failed, 0 xfailed, 0 skipped")


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.links = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "action")]


def test_the_page_needs_nothing_else_and_escapes_what_an_adapter_says():
    evil = [result(EVIL, Outcome.FAILED, EVIL)]
    made = report(*ALL, *evil, subject=EVIL, command=EVIL, versions={EVIL: EVIL})
    text = html_report(made)
    page = Page(text)
    assert "script" not in page.tags
    assert page.links == []
    assert "http" not in text
    assert "&lt;script&gt;" in text
    assert all(f"message of {outcome}" in text for outcome in Outcome)


def test_the_page_begins_with_the_versions_and_the_failures_and_shows_code_as_code():
    made = report(*ALL, result("build.last", Outcome.FAILED, "call `a<b` first"))
    text = html_report(made)
    order = [text.index(part) for part in ("0.1.0", "<h2>Levels", 'id="build.last"', 'id="build.passed"')]
    assert order == sorted(order)
    assert "call <code>a&lt;b</code> first" in text
    assert "`" not in text


def test_a_badge_has_the_form_that_shields_reads():
    good = badge(report(result("build.a"), result("build.b", Outcome.SKIPPED, "why")))
    assert good == {
        "schemaVersion": 1,
        "label": "anyblock toy",
        "message": "1 of 1 checks, 2 of 2 levels",
        "color": "brightgreen",
        "isError": False,
    }
    assert badge(report(result("build.a", Outcome.XFAILED, "why")))["color"] == "yellowgreen"
    headers = badge(report(result("build.a"), scope="headers"))
    assert headers["color"] == "yellowgreen"
    assert headers["message"].endswith("(headers alone)")
    assert badge(report(result("build.a", Outcome.FALSE_CLAIM, "why")))["color"] == "red"


def test_equal_reports_have_no_differences():
    made = report(*ALL)
    assert differences(made, made) == []
    assert "no difference" in shown(diff_view(made, made, []))


def test_differences_say_what_changed_and_whether_for_the_worse():
    before = report(result("build.a"), result("build.b", Outcome.FAILED, "x"), result("build.c"), result("build.d"))
    after = report(
        result("build.a", Outcome.FALSE_CLAIM, "x"),
        result("build.b"),
        result("build.c", Outcome.SKIPPED, "x"),
        result("build.e"),
        state="failed",
        declared="not implemented",
        versions={"anyblock": "0.2.0", "anyblock-toy": "1.2", "torch": "2.13.0"},
    )
    found = {
        (change.what, change.name): (change.before, change.after, change.worse) for change in differences(before, after)
    }
    assert found == {
        ("check", "build.a"): ("passed", "false claim", True),
        ("check", "build.b"): ("failed", "passed", False),
        ("check", "build.c"): ("passed", "skipped", True),
        ("check", "build.d"): ("passed", "absent", True),
        ("check", "build.e"): ("absent", "passed", False),
        ("level", "build"): ("passed", "failed", True),
        ("capability", "kv_heads"): ("full", "not implemented", True),
        ("version", "anyblock"): ("0.1.0", "0.2.0", False),
    }
    text = shown(diff_view(before, after, differences(before, after)))
    assert "8 differences, 5 for the worse" in text


@pytest.mark.parametrize("content", ["", "[]", "3", "{}", '{"schema": 2}', "{broken", '{"schema": 1, "subject": "x"}'])
def test_what_is_no_report_is_refused(tmp_path, content):
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"report\.json cannot be read"):
        read_report(path)


def test_files_that_cannot_be_written_are_an_error_that_names_them(tmp_path):
    with pytest.raises(InputError, match="is a directory"):
        write_text(tmp_path, "x")
    with pytest.raises(InputError, match=r"nowhere.x cannot be written"):
        write_text(tmp_path / "nowhere" / "x", "x")
