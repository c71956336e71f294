"""How long a whole run will take: from the work that its settings ask for, and the pace of what is done of it.

Work is counted in tokens through one decoder layer, forward. How many of them a stage is worth comes from what stages do, with
factors that were fitted to a few runs on one processor; what a machine makes of them in a second is seen in the run itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml  # type: ignore[import-untyped]

AFTER: Final = 60.0
"""Seconds of a run before there is an estimate."""
USUAL_ROUNDS: Final = 2
"""Rounds of refinement that runs usually need; they end when one gains little."""
_EXCHANGES: Final = 16
"""Exchanges that a round of refinement measures, about."""


class Estimate(NamedTuple):
    """Seconds to the end of a run: as far as can be seen, and at most, where rounds of refinement are open."""

    left: float
    most: float


class Work(NamedTuple):
    """What a stage does, in tokens through one layer: once, and in each of its rounds, of which there are at most so many."""

    once: float
    each: float = 0.0
    rounds: int = 0

    def after(self, rounds: int) -> float:
        """Return what it does if it needs so many rounds."""
        return self.once + self.each * min(rounds, self.rounds)

    @property
    def usual(self) -> float:
        """What it does as a rule."""
        return self.after(USUAL_ROUNDS)

    @property
    def most(self) -> float:
        """What it does at most."""
        return self.after(self.rounds)


class _Task(NamedTuple):
    """A task of the open stage: its units, the seconds that it takes in all at its pace, and the share that is done."""

    total: int
    seconds: float
    share: float


@dataclass
class Whole:
    """A run as far as its end can be seen.

    Args:
        run: its folder.
    """

    run: Path
    _plan: dict[str, Work] | None = None
    _began: float | None = None
    _time: float = 0.0
    _open: tuple[str, float] | None = None
    _done: dict[str, float] = field(default_factory=dict)
    _tasks: dict[int, _Task] = field(default_factory=dict)
    _gone: set[str] = field(default_factory=set)
    _rounds: int = 0

    def add(self, event: Mapping[str, Any]) -> None:
        """Take one event of the run into account."""
        self._time = float(event.get("time", self._time))
        kind = event.get("event")
        if kind == "run":
            self.__dict__.update(_plan=None, _began=self._time, _open=None, _done={}, _tasks={}, _gone=set(), _rounds=0)
        elif kind == "stage":
            stage, state = str(event["stage"]), event["state"]
            self._tasks = {}
            self._open = (stage, self._time) if state == "started" else None
            if state != "started":
                self._gone.add(stage)
            if state == "done":
                self._done[stage] = float(event["seconds"])
        elif kind == "task":
            self._tasks[event["task"]] = _Task(event["total"], 0.0, 0.0)
            self._rounds += event["what"] == _ROUND
        elif kind in ("progress", "finished") and event["task"] in self._tasks and event["left"] is not None:
            total = self._tasks[event["task"]].total
            seconds = event["seconds"] + event["left"]
            self._tasks[event["task"]] = _Task(total, seconds, event["done"] / total if total else 1.0)

    def estimate(self) -> Estimate | None:
        """Return how long the rest takes, as of the last event; None in the first minute and where nothing says it."""
        if self._began is None or self._time - self._began < AFTER:
            return None
        self._plan = self._plan or planned(self.run)
        if not self._plan:
            return None
        plan, now = self._plan, self._open[0] if self._open else ""
        elapsed = self._time - self._open[1] if self._open else 0.0
        task = max(self._tasks.values(), key=lambda task: task.seconds, default=None) if now in _LONG_TASK else None
        spent = sum(seconds for stage, seconds in self._done.items() if stage in plan)
        work = sum(plan[stage].after(self._rounds) for stage in self._done if stage in plan)
        if task is not None and now in plan:
            spent, work = spent + task.share * task.seconds, work + task.share * plan[now].usual
        if not work:
            return None
        pace = spent / work
        ahead = [each for stage, each in plan.items() if stage not in self._gone and stage != now]
        left, most = sum(each.usual for each in ahead) * pace, sum(each.most for each in ahead) * pace
        if now in plan:
            usual, longest = max(plan[now].usual, plan[now].after(self._rounds)) * pace, plan[now].most * pace
            if task is not None:  # the nearer its end, the better it says itself when that is
                usual = longest = task.share * task.seconds + (1 - task.share) * usual
            left += max(0.0, usual - elapsed)
            most += max(0.0, longest - elapsed)
        return Estimate(left, max(left, most))


def fields_of(run: Path) -> Callable[[Mapping[str, Any]], dict[str, float]]:
    """Return what gives the fields `whole_left` and `whole_most` of a run's events, in seconds; none where nothing says them."""
    whole = Whole(run)

    def fields(event: Mapping[str, Any]) -> dict[str, float]:
        """Take an event into account, and return what it says of the whole run."""
        whole.add(event)
        found = whole.estimate() if event.get("event") in ("stage", "progress", "finished") else None
        return {} if found is None else {"whole_left": found.left, "whole_most": found.most}

    return fields


_ROUND: Final = "Scoring around the child"
"""The task with which a round of refinement begins."""
_LONG_TASK: Final = frozenset(
    {"importance", "adaptations:repair", "adaptations:distill-blocks", "adaptations:distill-model", "evaluation"}
)
"""Stages that are one task from beginning to end."""


def planned(run: Path) -> dict[str, Work] | None:
    """Return the work of every stage of a run that takes long, by name; None before the run has written down what it does."""
    try:
        config = yaml.safe_load((run / "run.yaml").read_text(encoding="utf-8"))
        listed = json.loads((run / "stages" / "00-candidates" / "candidates.json").read_text(encoding="utf-8"))
        blocks, kinds = listed["blocks"], [row["candidate"]["kind"] for row in listed["candidates"]]
        sparse = any(block["ffn"].get("moe") for block in blocks)
        return _work(config, len(blocks), len(kinds) - kinds.count("teacher"), sparse=sparse)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None


def _work(config: Mapping[str, Any], layers: int, candidates: int, *, sparse: bool) -> dict[str, Work]:
    data, scoring, search = config["data"], config["scoring"], config["search"]
    calibrated, scored = data["calibration_tokens"] * layers, data["scoring_tokens"]
    sample = min(scoring["exact_sample"], candidates)
    exact = scored * layers / 2  # a candidate is run through the layers after it
    exactly = scoring["method"] == "exact" or scoring["metric"] != "kl"
    estimated = 0.3 * (1 + scoring["probes"]) * candidates * scored
    importance = (3.0 if sparse else 1.0) * calibrated  # every expert is run on every token there
    found = {"importance": Work(importance)}
    scores = 0.9 * candidates * exact if exactly else estimated + 0.9 * sample * exact
    found["scores"] = Work(scores)
    if rounds := search["refine_rounds"]:
        found["refine"] = Work(sample * exact, estimated + _EXCHANGES * exact, rounds)
    repair = config["pruning"].get("repair") or {}
    if repair.get("method") not in (None, "none"):
        work = (2.5 if repair.get("target") == "stream" else 1.6) * calibrated
        found["adaptations:repair"] = Work(work)
    for name, passes in (("blocks", 3.0), ("model", 4.4)):
        # Forward and backward, of three quarters of the text; the teacher once more where it is not spooled.
        settings = (config.get("distillation") or {}).get(name) or {}
        if settings.get("enabled"):
            work = passes * 0.75 * settings.get("epochs", 1) * calibrated
            found[f"adaptations:distill-{name}"] = Work(work)
    if config["evaluation"]["enabled"]:
        work = 0.67 * data["evaluation_tokens"] * layers
        found["evaluation"] = Work(work)
    return found
