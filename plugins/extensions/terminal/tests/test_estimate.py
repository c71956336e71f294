"""How long a whole run has left: exact where a run keeps the pace that the model expects, and never without grounds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from anyblock_terminal import estimate
from anyblock_terminal.display import left_text
from anyblock_terminal.estimate import Whole, fields_of, planned
from anyblock_terminal.state import RunState

PACE = 0.05
"""Seconds per token and layer, of the invented runs."""
ORDER = ("importance", "scores", "refine", "adaptations:repair", "adaptations:distill-blocks", "evaluation")


@pytest.fixture
def asked(run: Path, tmp_path: Path) -> Path:
    """A run folder that asks for six rounds of refinement and a distillation."""
    folder = tmp_path / "child.run"
    shutil.copytree(run / "stages" / "00-candidates", folder / "stages" / "00-candidates")
    config = yaml.safe_load((run / "run.yaml").read_text())
    config["search"]["refine_rounds"] = 6
    config["distillation"] = {"blocks": {"enabled": True, "epochs": 2}}
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    return folder


def told(folder: Path, rounds: str = "usual") -> Iterator[tuple[dict[str, Any], float]]:
    """Yield the events of a run that keeps the pace, each with the time at which it comes."""
    plan, at = planned(folder), 1000.0
    assert plan is not None
    yield {"event": "run", "folder": str(folder)}, at
    for number, stage in enumerate(ORDER):
        seconds = PACE * getattr(plan[stage], rounds)
        yield {"event": "stage", "stage": stage, "state": "started"}, at
        if stage == "refine":
            for task in range(2 if rounds == "usual" else 6):
                yield (
                    {
                        "event": "task",
                        "task": 100 + task,
                        "what": "Scoring around the child",
                        "total": 4,
                        "unit": "units",
                    },
                    at,
                )
        yield {"event": "task", "task": number, "what": stage, "total": 4, "unit": "units"}, at
        for done in (1, 2, 3, 4):
            at += seconds / 4
            gone, left = seconds * done / 4, seconds * (4 - done) / 4
            kind = "progress" if done < 4 else "finished"
            yield {"event": kind, "task": number, "done": done, "seconds": gone, "rate": 1.0, "left": left}, at
        yield {"event": "stage", "stage": stage, "state": "done", "seconds": seconds}, at


@pytest.mark.parametrize("rounds", ["usual", "most"])
def test_a_run_that_keeps_its_pace_ends_when_it_was_said(asked: Path, rounds: str) -> None:
    whole, events = Whole(asked), list(told(asked, rounds))
    end, seen = events[-1][1], 0
    assert end - 1000.0 > 2 * estimate.AFTER
    for event, time in events:
        whole.add({**event, "time": time})
        found = whole.estimate()
        if time - 1000.0 < estimate.AFTER:
            assert found is None
            continue
        assert found is not None
        seen += 1
        assert found.left <= found.most
        said = found.left if rounds == "usual" else found.most
        assert said == pytest.approx(end - time, abs=1e-6 * end)
    assert seen > 10


def test_what_is_kept_from_before_is_not_ahead(asked: Path) -> None:
    events = list(told(asked))
    plan = planned(asked)
    assert plan is not None
    reused = [{"time": 1000.0, "event": "stage", "stage": stage, "state": "reused"} for stage in ORDER[:3]]
    whole = Whole(asked)
    whole.add({"time": 1000.0, "event": "run"})
    for event in reused:
        whole.add(event)
    whole.add({"time": 1100.0, "event": "note", "text": "nothing has been done yet, so no pace is known"})
    assert whole.estimate() is None
    begin = next(i for i, (event, _) in enumerate(events) if event.get("stage") == ORDER[3])
    for event, time in events[begin : begin + 7]:
        whole.add({**event, "time": time - events[begin][1] + 1100.0})
    found = whole.estimate()
    assert found is not None
    assert found.left == found.most == pytest.approx(PACE * sum(plan[stage].usual for stage in ORDER[4:]))


def test_the_block_says_at_most_while_rounds_are_open(asked: Path) -> None:
    state, texts = RunState(), {}
    for event, time in told(asked):
        state.add({**event, "time": time})
        texts[event.get("stage", ""), event.get("state", "")] = left_text(state, time)
    assert texts["importance", "started"] == ""  # the first minute
    assert " left, at most " in texts["scores", "done"]
    assert texts["scores", "done"].endswith("if all rounds of refinement are needed")
    assert "at most" not in texts["refine", "done"]
    assert texts["refine", "done"].startswith(", about ")
    assert texts["evaluation", "done"] == ", ending"


def test_a_real_run_says_it_in_its_events(run: Path) -> None:
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    said = [event for event in events if "whole_left" in event]
    assert {event["event"] for event in said} <= {"stage", "progress", "finished"}
    assert all(0 <= event["whole_left"] <= event["whole_most"] for event in said)
    evaluated = next(e for e in said if e.get("stage") == "evaluation" and e["state"] == "done")
    assert evaluated["whole_left"] == evaluated["whole_most"] == 0
    plan = planned(run)
    assert plan is not None
    done = {event["stage"] for event in events if event["event"] == "stage" and event["state"] == "done"}
    assert set(plan) <= done
    assert set(plan) == {"importance", "scores", "refine", "adaptations:repair", "evaluation"}


@pytest.mark.parametrize("damage", ["run.yaml", "stages/00-candidates/candidates.json"])
def test_without_a_plan_nothing_is_said(asked: Path, damage: str) -> None:
    events = list(told(asked))
    (asked / damage).write_text("[}")
    fields = fields_of(asked)
    for event, time in events:
        assert fields({**event, "time": time}) == {}
