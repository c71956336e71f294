"""Progress on a terminal and in a log file."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from anyblock import progress, rich_progress
from anyblock.rich_progress import rate_text, terminal_progress
from rich.console import Console


def terminal():
    return Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)


@pytest.mark.parametrize(
    ("rate", "unit", "text"),
    [
        (1_234.0, "tokens", "1,234 tokens/s"),
        (350e6, "bytes", "334 MiB/s"),
        (0.25, "candidates", "0.250 candidates/s"),
        (12.04, "samples", "12.0 samples/s"),
    ],
)
def test_rates_are_in_their_unit(rate, unit, text):
    assert rate_text(rate, unit) == text


def test_a_terminal_without_a_display_gets_lines(monkeypatch):
    monkeypatch.setattr(rich_progress, "installed_entries", lambda group: {})
    console = terminal()
    with terminal_progress(console).task("score", total=4, unit="candidates") as advance:
        advance(4)
    assert console.file.getvalue().startswith("score: done in")


def test_a_terminal_is_handed_to_the_installed_display(monkeypatch):
    seen = []

    class Entry:
        def load(self):
            return lambda console: seen.append

    monkeypatch.setattr(rich_progress, "installed_entries", lambda group: {group: Entry()})
    with terminal_progress(terminal()).task("score", total=4, unit="candidates") as advance:
        advance(4)
    assert [event["event"] for event in seen] == ["task", "finished"]
    seen.clear()
    terminal_progress(Console(file=io.StringIO())).note("not a terminal")
    assert seen == []


def test_a_display_that_cannot_be_loaded_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def load(self) -> None:
            raise ImportError("no such module")

    monkeypatch.setattr(rich_progress, "installed_entries", lambda group: {"bars": Broken()})
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with console.capture() as captured:
        terminal_progress(console).note("at work")
    assert captured.get().splitlines() == ["the display 'bars' cannot be loaded, so there are plain lines", "at work"]


def test_a_log_gets_a_line_now_and_then(monkeypatch):
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    console = Console(file=io.StringIO(), width=44)
    with terminal_progress(console).task("score", total=100, unit="candidates") as advance:
        for _ in range(10):
            now += 10.0
            advance(10)
    assert console.file.getvalue().splitlines() == [
        "score: 30 %, 1.00 candidates/s, 70 s left",
        "score: 60 %, 1.00 candidates/s, 40 s left",
        "score: 90 %, 1.00 candidates/s, 10 s left",
        "score: done in 100.0 s, 1.00 candidates/s",
    ]


def test_what_was_done_before_does_not_count_as_speed(monkeypatch):
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    console = Console(file=io.StringIO())
    with terminal_progress(console).task("score", total=100, unit="candidates") as advance:
        advance(40)
        now += 30.0
        advance(30)
        now += 30.0
        advance(30)
    assert console.file.getvalue().splitlines() == [
        "score: 70 %, 1.00 candidates/s, 30 s left",
        "score: done in 60.0 s, 1.00 candidates/s",
    ]


def test_standard_output_is_never_written_to():
    code = (
        "from anyblock.rich_progress import terminal_progress\n"
        "p = terminal_progress()\n"
        "with p.task('work', total=1, unit='tokens') as advance: advance(1)\n"
        "p.note('a note')\n"
        "import sys; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert "work: done" in done.stderr
    assert "a note" in done.stderr
