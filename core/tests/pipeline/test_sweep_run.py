"""Many budgets, restrictions and baselines from one finished run."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from anyblock.config import RunConfig
from anyblock.errors import OutputExistsError, UsageError
from anyblock.pipeline.compress import compress
from anyblock.pipeline.saved_search import Restrictions, search_run, sweep_run


def test_sweep_restrictions_and_baseline(settings: dict[str, Any], tmp_path: Path) -> None:
    settings = {**settings, "evaluation": {"enabled": False}}
    result = compress(RunConfig.model_validate(settings))
    teacher = (result.summary.teacher_costs or {})["params"]
    out = tmp_path / "front"
    points = sweep_run(result.run, "params=0.6x,0.8x,0.01x", ["kv_heads>=2"], out)
    assert [point.value for point in points] == pytest.approx([0.01 * teacher, 0.6 * teacher, 0.8 * teacher])
    assert points[0].solution is None
    for point, share in zip(points[1:], ("0.6x", "0.8x"), strict=True):
        single = search_run(result.run, [f"params={share}", "kv_heads>=2"]).solutions[0]
        assert point.solution is not None
        assert point.solution.score == pytest.approx(single.score)
    with (out / "sweep.csv").open() as file:
        assert next(row["status"] for row in csv.DictReader(file)) == "infeasible"
    assert len(json.loads((out / "sweep.json").read_text())) == 3
    with pytest.raises(OutputExistsError):
        sweep_run(result.run, "params=0.6x", [], out)
    with pytest.raises(UsageError, match="is not a sweep"):
        sweep_run(result.run, "params", [], tmp_path / "none")

    free = search_run(result.run, ["params=0.7x"]).solutions[0]
    group, label = next(iter(free.choices.items()))
    banned = search_run(result.run, ["params=0.7x"], restrictions=Restrictions(forbidden={group: {label}})).solutions[0]
    assert banned.choices[group] != label
    assert banned.score >= free.score
    fixed = search_run(result.run, ["params=0.7x"], restrictions=Restrictions(fixed={group: "no_op"})).solutions[0]
    assert fixed.choices[group] == "no_op"
    alike = search_run(result.run, ["params=0.7x"], restrictions=Restrictions(homogeneous=True)).solutions[0]
    for half in ("attention", "ffn"):
        assert len({choice for key, choice in alike.choices.items() if key.endswith(half)}) == 1
    assert alike.score >= free.score
