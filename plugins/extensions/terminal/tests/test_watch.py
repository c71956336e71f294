"""`anyblock watch` and the live display, on real runs and on the events that they wrote."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from anyblock.cli import app, main
from anyblock.progress import Events
from anyblock.rich_progress import terminal_progress
from anyblock_terminal import watch as command
from anyblock_terminal.display import Display
from anyblock_terminal.state import RunState, amount, duration
from anyblock_terminal.watch import EventFile
from anyblock_tests.pages import run_page
from rich.console import Console
from typer.testing import CliRunner

README = Path(__file__).parents[1] / "README.md"


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=110, height=40, color_system=None)


def events_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


def show(run: Path) -> Any:
    return CliRunner().invoke(app, ["watch", str(run)])


def write(run: Path, *events: dict[str, Any], torn: str = "") -> Path:
    run.mkdir()
    (run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + torn)
    return run


def test_a_finished_run_is_shown_as_a_table(run: Path) -> None:
    done = show(run)
    assert done.exit_code == 0, done.output
    summary = json.loads((run / "summary.json").read_text())
    for stage in summary["stages"]:
        assert any(line.startswith(stage["name"]) for line in done.output.splitlines()), stage["name"]
    assert f"{summary['quality']['kl_per_token']:.4f} (evaluation" in done.output
    assert "done in" in done.output.splitlines()[-1]


def test_a_run_of_another_process_is_followed_to_its_end(run: Path, tmp_path: Path) -> None:
    """Another process appends the events of a real run, one by one, in pieces that end within lines."""
    other = tmp_path / "other.run"
    other.mkdir()
    text = (run / "events.jsonl").read_bytes()
    first = text.index(b"\n") + 1
    (other / "events.jsonl").write_bytes(text[:first])
    code = (
        "import json, os, socket, sys, time; from pathlib import Path\n"
        "run, text = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes()\n"
        "(run / '.holder.json').write_text(json.dumps({'pid': os.getpid(), 'host': socket.gethostname()}))\n"
        "print('held', flush=True); sys.stdin.readline()\n"
        "for at in range(int(sys.argv[3]), len(text), 97):\n"
        "    with (run / 'events.jsonl').open('ab') as file: file.write(text[at:at + 97])\n"
        "    time.sleep(0.005)\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(other), str(run / "events.jsonl"), str(first)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert writer.stdout is not None
    assert writer.stdin is not None
    assert writer.stdout.readline() == "held\n"
    timer = threading.Timer(0.3, lambda: (writer.stdin.write("\n"), writer.stdin.flush()))
    timer.start()
    done = show(other)
    timer.join()
    writer.stdin.close()
    writer.wait(timeout=60)
    writer.stdout.close()
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == show(run).output.splitlines()[-1]


def test_a_torn_line_is_left_out_and_a_run_that_goes_on_is_one_table(tmp_path: Path, run: Path) -> None:
    events = events_of(run)
    half = next(number for number, event in enumerate(events) if event.get("stage") == "scores") + 1
    again = [events[0], {"time": 1.0, "event": "stage", "stage": "data", "state": "reused"}, *events[half - 1 :]]
    first = write(tmp_path / "a.run", *events[:half], torn='{"time": 1, "eve\n')
    with (first / "events.jsonl").open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in again)
    done = show(first)
    assert done.exit_code == 0, done.output
    lines = [line.rstrip() for line in done.output.splitlines()]
    assert sum(line.startswith("scores ") for line in lines[lines.index("Stages") :]) == 1
    assert any(line.startswith("data") and "kept from before" in line for line in lines)


def test_a_run_that_was_killed_is_told_apart_from_one_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = {"time": 1.0, "event": "run", "pid": 0}
    killed = write(tmp_path / "killed.run", start, {"time": 2.0, "event": "stage", "stage": "data", "state": "started"})
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    (killed / ".holder.json").write_text(json.dumps({"pid": child.pid, "host": socket.gethostname()}))
    done = show(killed)
    assert done.exit_code == 1
    assert "its process is gone" in done.output
    state = RunState()
    state.add(start)
    (killed / ".holder.json").write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
    assert not command._gone(killed, state)
    (killed / ".holder.json").write_text(json.dumps({"pid": child.pid, "host": "another machine"}))
    assert not command._gone(killed, state)


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    failed = write(
        tmp_path / "failed.run",
        {"time": 1.0, "event": "run", "pid": 1},
        {"time": 2.0, "event": "of a later version"},
        {"time": 3.0, "event": "end", "state": "failed", "error": "no room\nmore"},
    )
    done = show(failed)
    assert done.exit_code == 1
    assert done.output.splitlines()[-1] == "failed after 2.0 s: no room"


def test_what_is_not_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["watch", str(tmp_path)])
    assert stop.value.code == 2
    assert "has no events.jsonl" in capsys.readouterr().err


def test_a_run_is_one_block_on_a_terminal_that_ends_as_a_table(run: Path) -> None:
    events = events_of(run)
    console = terminal()
    display = Display(console, clock=lambda: display.state.time)
    open_tasks = set()
    for event in events[:-1]:
        display(event)
        if event["event"] == "task":
            console.print(display.render())
            open_tasks.add(event["what"])
    assert len(open_tasks) > 3
    for what in open_tasks:
        assert what in console.file.getvalue()
    display(events[-1])
    last = console.file.getvalue().rpartition("Stages")[2]
    names = [event["stage"].rpartition(":")[2] for event in events if event.get("state") == "done" and "stage" in event]
    assert [line.split()[0] for line in last.splitlines() if line.split()[:1] and line.split()[0] in names] == names
    assert display._live is None


def test_other_work_is_a_block_that_ends_as_one_line() -> None:
    console = terminal()
    progress = Events(Display(console))
    with progress.task("outer", total=2, unit="layers") as outer:
        with progress.task("inner [/] step", total=3, unit="tokens") as inner:
            inner(3)
        progress.note("kept [bold]this[/bold]")
        outer(2)
    shown = console.file.getvalue()
    assert "kept [bold]this[/bold]" in shown
    assert shown.rstrip().splitlines()[-1].startswith("outer: done in")
    with pytest.raises(ValueError, match="boom"), progress.task("work", total=2, unit="tokens"):
        raise ValueError("boom")
    assert "work: done" not in console.file.getvalue()


def test_core_finds_the_display() -> None:
    console = terminal()
    with terminal_progress(console).task("score", total=4, unit="candidates") as advance:
        advance(4)
    assert "score: done in" in console.file.getvalue()


def test_a_long_list_of_stages_fits_a_low_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=12, color_system=None)
    display = Display(console, clock=lambda: 100.0)
    display.state.add({"time": 1.0, "event": "run"})
    for number in range(20):
        display.state.add({"time": 2.0, "event": "stage", "stage": f"adaptations:s{number}", "state": "started"})
    with console.capture() as captured:
        console.print(display.render())
    assert len(captured.get().splitlines()) < 12
    assert "s19" in captured.get()
    assert "(16 before)" in captured.get()


def test_lines_that_are_not_finished_wait() -> None:
    file = io.BytesIO()
    source = EventFile(file)
    for piece, found in ((b'{"a"', []), (b": 1}\n\n{", [{"a": 1}]), (b"}\n[1]\nx\n", [{}])):
        at = file.tell()
        file.write(piece)
        file.seek(at)
        assert list(source.new()) == found


def test_amounts_and_durations() -> None:
    assert [amount(value, unit) for value, unit in ((24, "candidates"), (1.2e6, "bytes"), (32_768, "tokens"))] == [
        "24 candidates", "1.2 MB", "32.8k tokens"]  # fmt: skip
    assert [duration(value) for value in (4.21, 123.4, 3723)] == ["4.2 s", "2:03", "1:02:03"]


@pytest.mark.slow
def test_the_commands_of_the_readme_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = README.read_text(encoding="utf-8")
    small = "data.block_size=64 data.calibration_tokens=512 data.scoring_tokens=128 data.evaluation_tokens=128"
    page = folder / "page.md"
    head = text.partition("## init")[0].replace("compress run.yaml", f"compress run.yaml {small}")
    page.write_text(head)
    assert len(run_page(page, folder, monkeypatch)) == 4
    shutil.rmtree(folder / "child.run")
