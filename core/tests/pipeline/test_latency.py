"""Budgets on latency and throughput: timed once, searched, checked on the child. The clock counts multiplications."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from anyblock.config import RunConfig
from anyblock.errors import BudgetError, UsageError
from anyblock.pipeline.compress import CompressResult, compress
from anyblock.pipeline.saved_search import search_run
from anyblock.run.run_folder import RunFolder

pytest.importorskip("anyblock_latency")


def run(settings: dict[str, Any], **search: Any) -> CompressResult:
    base = {"length": 24, "generated": 8, "batch": 2, "timing_rounds": 3, "refine_rounds": 0}
    evaluation = {"enabled": False}
    config = RunConfig.model_validate({**settings, "search": {**base, **search}, "evaluation": evaluation})
    return compress(config, overwrite=True)


def check_of(result: CompressResult) -> dict[str, float]:
    found: dict[str, float] = json.loads(
        RunFolder(result.run).result("measured-check:latency", "check.json").read_text()
    )
    return found


def test_the_child_keeps_a_share_of_the_teachers_latency(settings: dict[str, Any], clock: Any) -> None:
    result = run(settings, budget={"latency": "0.8x"})
    costs, teacher = result.summary.costs or {}, result.summary.teacher_costs or {}
    assert 0 < costs["latency"] <= 0.8 * teacher["latency"]
    check = check_of(result)
    # Multiplications do add up, so here the sum of parts is exact: a part left out or counted twice would show.
    assert check["measured"] == pytest.approx(check["predicted"])
    assert check["teacher_factor"] == pytest.approx(1.0)
    assert check["factor"] == pytest.approx(1.0)
    report = (result.run / "report.md").read_text()
    assert "error +0.0%, calibration factor 1.000" in report.replace("error -0.0%", "error +0.0%")
    assert "Throughput: " in report


def test_each_distinct_shape_is_timed_once_and_kept(settings: dict[str, Any], clock: Any) -> None:
    first = run(settings, budget={"latency": "0.8x"})
    (kept,) = json.loads((first.run / "latency-times.json").read_text()).values()
    # One attention and three ffn widths for all of the three layers, what is outside the layers, and the whole teacher.
    assert len(kept) == 6
    reads = clock.reads
    again = run(settings, budget={"latency": "0.8x"})
    assert clock.reads == reads
    assert {stage.name for stage in again.summary.stages if not stage.reused} == set()
    wider = {**settings, "pruning": {"ffn": {"sizes": [0.25, 0.5, 0.75]}}}
    run(wider, budget={"latency": "0.8x"})
    (more,) = json.loads((first.run / "latency-times.json").read_text()).values()
    assert len(more) == 7
    assert {key: more[key] for key in kept} == kept


def test_throughput_is_a_bound_on_latency(settings: dict[str, Any], clock: Any, tmp_path: Path) -> None:
    relative = run(settings, budget={"throughput": "1.25x"})
    teacher = (relative.summary.teacher_costs or {})["latency"]
    assert relative.solution.costs["latency"] <= teacher / 1.25
    wanted = 2 * 8 / teacher * 1000 * 1.25  # two sequences of eight generated tokens
    absolute = run({**settings, "output": str(tmp_path / "two")}, budget={"throughput": wanted})
    assert absolute.solution.choices == relative.solution.choices


def test_prefill_alone_and_several_budgets(settings: dict[str, Any], clock: Any) -> None:
    result = run(settings, budget={"latency": "0.9x", "params": "0.8x"}, generated=0)
    teacher = result.summary.teacher_costs or {}
    assert result.solution.costs["latency"] <= 0.9 * teacher["latency"]
    assert result.solution.costs["params"] <= 0.8 * teacher["params"]
    found = search_run(result.run, ["latency=0.7x"])
    assert found.solutions[0].costs["latency"] <= 0.7 * teacher["latency"]


def test_an_unreachable_latency_is_refused_with_the_smallest_value(settings: dict[str, Any], clock: Any) -> None:
    with pytest.raises(BudgetError, match=r"latency <= .*smallest reachable value is"):
        run(settings, budget={"latency": "0.0001x"})
    assert not Path(settings["output"]).exists()


def test_a_run_without_times_says_so(settings: dict[str, Any]) -> None:
    result = run(settings, budget={"params": "0.8x"})
    assert not (result.run / "latency-times.json").exists()
    with pytest.raises(UsageError, match="'latency' is not known"):
        search_run(result.run, ["latency=0.8x"])


@pytest.mark.parametrize("memory", [{}, {"max_resident": 1}], ids=["whole", "in parts"])
def test_with_a_smaller_hidden_size_shares_are_shares_of_the_model_as_it_was_given(
    settings: dict[str, Any], clock: Any, tmp_path: Path, memory: dict[str, int]
) -> None:
    plain = run({**settings, "output": str(tmp_path / "plain")}, budget={"latency": "0.9x"})
    given = (plain.summary.teacher_costs or {})["latency"]
    pruning = {**settings["pruning"], "hidden_size": {"sizes": [24]}}
    settings = {**settings, "pruning": pruning, "memory": memory}
    result = run(settings, budget={"latency": "0.6x"})
    costs, teacher = result.summary.costs or {}, result.summary.teacher_costs or {}
    assert teacher["latency"] == pytest.approx(given)
    assert 0 < costs["latency"] <= 0.6 * given
    if not memory:
        assert check_of(result)["measured"] == pytest.approx(check_of(result)["predicted"])
    # The narrowed model alone has the work of 24 of 32 channels, and attention within the heads besides.
    loosest = search_run(result.run, ["latency=1x"]).solutions[0]
    assert set(loosest.choices.values()) == {"teacher"}
    assert loosest.costs["latency"] == pytest.approx(24 / 32 * given, rel=0.02)
    assert search_run(result.run, ["throughput=2x"]).solutions[0].costs["latency"] <= given / 2
    reads = clock.reads
    again = run(settings, budget={"latency": "0.6x"})
    assert clock.reads == reads
    assert all(stage.reused for stage in again.summary.stages)
    with pytest.raises(BudgetError, match="smallest reachable value"):
        run({**settings, "output": str(tmp_path / "other")}, budget={"latency": "0.0001x"})


def test_real_time_on_this_machine(settings: dict[str, Any]) -> None:
    result = run(settings, budget={"latency": "1.5x", "params": "0.8x"})
    check = check_of(result)
    assert check["measured"] > 0
    assert check["factor"] == pytest.approx(check["teacher_factor"] * check["measured"] / check["predicted"])
