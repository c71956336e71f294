"""`events.jsonl`: what a run does, as lines that another process can read meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from anyblock.config import RunConfig
from anyblock.pipeline.compress import compress
from anyblock.progress import SILENT, Event, Events, recorded
from anyblock_tests.stopping import Stop, StopAfter


def read(path: Path) -> list[Event]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_tells_every_stage_its_tasks_and_the_kl_after_it(settings: dict[str, Any]) -> None:
    settings["search"] = {"budget": {"params": "0.7x"}, "refine_rounds": 1}
    shown: list[Event] = []
    result = compress(RunConfig.model_validate(settings), progress=Events(shown.append))
    events = read(result.run / "events.jsonl")
    assert (events[0]["event"], events[-1]["event"], events[-1]["state"]) == ("run", "end", "done")
    times = [event["time"] for event in events]
    assert times == sorted(times)
    done = [event for event in events if event["event"] == "stage" and event["state"] == "done"]
    lines = {line["name"]: line for line in json.loads((result.run / "summary.json").read_text())["stages"]}
    assert {event["stage"].rpartition(":")[2] for event in done} == set(lines)
    for event in done:
        line = lines[event["stage"].rpartition(":")[2]]
        assert (event["seconds"], event["memory"]) == (line["seconds"], line["memory"])
    measured = {event["stage"]: event for event in done if "kl" in event}
    assert measured["evaluation"]["kl"] == pytest.approx(result.summary.quality["kl_per_token"], abs=1e-4)
    assert set(measured) == {"refine", "adaptations:repair", "evaluation"}
    opened = {event["task"]: event for event in events if event["event"] == "task"}
    finished = [event for event in events if event["event"] == "finished"]
    assert {event["task"] for event in finished} == set(opened)
    assert all(event["done"] == opened[event["task"]]["total"] for event in finished)
    # What shows the run is told the same, in its own numbering.
    assert [event["event"] for event in shown if event["event"] in ("run", "stage", "end")] == [
        event["event"] for event in events if event["event"] in ("run", "stage", "end")
    ]


def test_a_run_that_is_started_again_appends(settings: dict[str, Any]) -> None:
    settings["search"] = {"budget": {"params": "0.7x"}, "refine_rounds": 0}
    with pytest.raises(Stop):
        compress(RunConfig.model_validate(settings), progress=StopAfter(0, "Repairing"))
    file = Path(settings["output"] + ".run") / "events.jsonl"
    before = file.read_bytes()
    assert read(file)[-1]["event"] == "end"
    assert read(file)[-1]["state"] != "done"
    file.write_bytes(before + b'{"time": 1.0, "event": "prog')  # as a process leaves it that is killed while it writes
    compress(RunConfig.model_validate(settings))
    text = file.read_bytes()
    assert text.startswith(before)
    torn, *lines = text[len(before) :].splitlines()
    with pytest.raises(ValueError, match="Unterminated"):
        json.loads(torn)
    second = [json.loads(line) for line in lines]
    reused = [event["stage"] for event in second if event["event"] == "stage" and event["state"] == "reused"]
    assert set(reused) >= {"candidates", "data", "teacher", "importance", "scores", "search"}
    assert second[-1] == second[-1] | {"event": "end", "state": "done"}


def test_failures_and_signals_end_a_run_differently(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="boom"), recorded(tmp_path / "a", SILENT):
        raise ValueError("boom")
    assert read(tmp_path / "a")[-1] | {"time": 0} == {"time": 0, "event": "end", "state": "failed", "error": "boom"}
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "b")
    *_, finished, end = read(tmp_path / "b")
    assert (finished["whole"], finished["done"]) == (False, 1)
    assert end["state"] == "stopped"


def interrupted(file: Path) -> None:
    with recorded(file, SILENT) as events, events.task("work", total=3, unit="layers") as advance:
        advance(1)
        raise KeyboardInterrupt


def test_what_an_extension_says_of_an_event_is_written_and_its_faults_cost_nothing(tmp_path: Path) -> None:
    def more(event: Event) -> Event:
        return {"whole_left": 1.23456} if event["event"] == "note" else {"x": event["no such field"]}

    shown: list[Event] = []
    with recorded(tmp_path / "events.jsonl", Events(shown.append), more) as events:
        events.note("a note")
    begun, note, end = read(tmp_path / "events.jsonl")
    assert (begun["event"], end["state"]) == ("run", "done")
    assert begun["folder"] == str(tmp_path.resolve())
    assert note["whole_left"] == 1.2346
    assert not any("x" in event or "whole_left" in event for event in (begun, end, *shown))
