"""The pipeline: a child under budget, stages that are reused when nothing changed, runs that go on where they stopped."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from anyblock.config import RunConfig
from anyblock.errors import BudgetError, InputError, OutputExistsError, UsageError
from anyblock.modeling.load import load_model
from anyblock.pipeline.compress import compress
from anyblock.pipeline.saved_search import search_run
from anyblock.run.run_folder import RunFolder
from anyblock.stages.candidates import read_candidates
from anyblock.stages.refine import read_refinement
from anyblock_tests.stopping import Stop, StopAfter


def config_of(settings: dict[str, Any]) -> RunConfig:
    return RunConfig.model_validate(settings)


def tree_digest(folder: Path) -> dict[str, str]:
    """The content of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_child_keeps_the_budget_and_loads(settings: dict[str, Any]) -> None:
    result = compress(config_of(settings))
    teacher, child = load_model(settings["model"]), load_model(settings["output"])
    parameters = [sum(p.numel() for p in model.parameters()) for model in (teacher, child)]
    assert parameters[1] <= 0.75 * parameters[0]
    assert result.summary.costs is not None
    assert result.summary.costs["params"] == parameters[1]
    assert result.summary.teacher_costs is not None
    assert result.summary.teacher_costs["params"] == parameters[0]
    assert result.solution.status == "proven"
    assert result.evaluation is not None
    assert result.evaluation.parameters == parameters[1]
    report = (result.run / "report.md").read_text()
    assert "params" in report
    assert (result.run / "run.yaml").is_file()


def test_others_may_read_the_files_of_a_run(settings: dict[str, Any], tmp_path: Path) -> None:
    """On a shared machine, as far as its umask says; safetensors alone would leave them to their owner."""
    (tmp_path / "usual").touch()
    result = compress(config_of(settings))
    usual = (tmp_path / "usual").stat().st_mode
    files = [path for path in (*result.run.rglob("*"), *result.child.path.rglob("*")) if path.is_file()]
    assert not [path for path in files if path.stat().st_mode != usual and not path.name.startswith(".")]


def test_nothing_runs_again_until_an_input_changes(settings: dict[str, Any]) -> None:
    compress(config_of(settings))
    before = tree_digest(Path(settings["output"]))

    def reran(changed: dict[str, Any]) -> set[str]:
        result = compress(config_of(changed), overwrite=True)
        return {stage.name for stage in result.summary.stages if not stage.reused}

    assert reran(settings) == set()
    looser = {**settings["search"], "budget": {"params": "0.8x"}}
    assert reran({**settings, "search": looser}) == {"search", "refine", "repair", "child", "evaluation"}
    assert reran({**settings, "scoring": {"metric": "mse"}}) >= {"scores"}
    other = {**settings["data"], "block_size": 16}
    assert {"data", "importance", "scores"} <= reran({**settings, "data": other})
    reran(settings)
    assert tree_digest(Path(settings["output"])) == before


def test_a_stopped_run_goes_on_and_ends_with_the_same_child(settings: dict[str, Any], tmp_path: Path) -> None:
    whole = StopAfter(10**9)
    compress(config_of(settings), progress=whole)
    steps = 10**9 - whole.left
    expected = tree_digest(Path(settings["output"]))
    assert {"Calibrating", "Scoring candidates", "Repairing", "Writing the child"} <= set(whole.seen)
    settings = {**settings, "output": str(tmp_path / "again")}
    stops = 0
    points = sorted({steps * k // 13 for k in range(1, 13)} | {1, steps - 1})
    for point in points:
        try:
            compress(config_of(settings), progress=StopAfter(max(1, point // 3)))
        except Stop:
            stops += 1
            assert not Path(settings["output"]).exists() or tree_digest(Path(settings["output"])) == expected
    assert stops >= 3
    compress(config_of(settings))
    assert tree_digest(Path(settings["output"])) == expected
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_refinement_that_is_stopped_in_any_round_ends_like_one_that_is_not(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    settings["model"] = str(Path(__file__).parents[1] / "assets" / "tiny-llama")
    settings["pruning"] = {"ffn": {"sizes": [0.25, 0.5, 0.75], "hook": "IterativeChannelContributionHook"}}
    settings["search"] = {"budget": {"params": "0.5x"}, "refine_rounds": 4}
    whole, task = StopAfter(10**9, "Measuring exchanges"), "Measuring exchanges"
    run = compress(config_of(settings), progress=whole).run
    expected = RunFolder(run).result("refine", "refinement.json").read_bytes()
    assert {step["number"] for step in json.loads(expected)["steps"]} >= {1, 2}
    steps = 10**9 - whole.left
    settings["output"] = str(tmp_path / "again")
    for point in (steps // 5, steps // 3, steps // 2):  # each goes on behind the last round that was finished
        with pytest.raises(Stop):
            compress(config_of(settings), progress=StopAfter(point, task))
    run = compress(config_of(settings)).run
    assert RunFolder(run).result("refine", "refinement.json").read_bytes() == expected
    assert tree_digest(tmp_path / "again") == tree_digest(tmp_path / "child")


def test_refinement_never_ends_above_where_it_started(settings: dict[str, Any]) -> None:
    one_shot = {**settings, "search": {**settings["search"], "refine_rounds": 0}, "output": settings["output"] + "-one"}
    first, refined = compress(config_of(one_shot)), compress(config_of(settings))
    steps = read_refinement(RunFolder(refined.run))
    assert len(steps) <= 2
    kept = [step.measured for step in steps if step.kept]
    assert kept == sorted(kept, reverse=True)
    teacher = refined.summary.teacher_costs or {}
    assert refined.solution.costs["params"] <= 0.75 * teacher["params"]
    assert refined.solution.choices == first.solution.choices or kept


def test_a_damaged_stage_is_run_again(settings: dict[str, Any]) -> None:
    result = compress(config_of(settings))
    before = tree_digest(Path(settings["output"]))
    scores = RunFolder(result.run).result("scores", "scores.json")
    scores.write_text(json.dumps({key: score + 1 for key, score in json.loads(scores.read_text()).items()}))
    again = compress(config_of(settings))
    assert {stage.name for stage in again.summary.stages if not stage.reused} == {"scores"}
    assert tree_digest(Path(settings["output"])) == before


def test_a_child_that_was_changed_or_removed_is_written_again(settings: dict[str, Any]) -> None:
    compress(config_of(settings))
    output = Path(settings["output"])
    before = tree_digest(output)
    (output / "subblocks_safetensors" / "lm_head.safetensors").unlink()
    compress(config_of(settings), overwrite=True)
    assert tree_digest(output) == before


def test_other_budgets_need_no_model(settings: dict[str, Any]) -> None:
    result = compress(config_of(settings))
    found = search_run(result.run, ["params=0.6x"], solutions=3, min_distance=2)
    assert len(found.solutions) == 3
    teacher = result.summary.teacher_costs or {}
    assert all(solution.costs["params"] <= 0.6 * teacher["params"] for solution in found.solutions)
    assert found.solutions[0].score <= found.solutions[1].score <= found.solutions[2].score
    assert found.solutions[0].distance(found.solutions[1]) >= 2
    with pytest.raises(BudgetError):
        search_run(result.run, ["params=0.01x"])
    with pytest.raises(InputError, match="is not a run folder"):
        search_run(Path(settings["output"]), ["params=0.6x"])


def test_candidates_of_an_earlier_version_are_refused_and_not_misread(tmp_path: Path) -> None:
    """Their file did not say what the model costs as it was given, unless its hidden size was cut."""
    run = RunFolder(tmp_path)
    with run.stage("candidates", {}).run() as folder:
        data = {"blocks": [], "candidates": [], "fixed": {"params": 1.0}, "original": None}
        (folder / "candidates.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="candidates are those of an earlier version"):
        read_candidates(run)


def test_what_is_at_the_output_is_never_lost(settings: dict[str, Any]) -> None:
    output = Path(settings["output"])
    output.mkdir()
    (output / "precious.txt").write_text("mine")
    with pytest.raises(OutputExistsError):
        compress(config_of(settings))
    assert tree_digest(output).keys() == {"precious.txt"}
    assert not Path(f"{output}.run").exists()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"search": {"budget": {"params": "0.01x"}}}, BudgetError, "smallest"),
        ({"search": {}}, UsageError, "no budget"),
        ({"model": "no/where/at/all"}, InputError, "no/where"),
        ({"data": {}}, UsageError, "--data"),
        ({"pruning": {"ffn": {"hook": "NoSuchHook"}}}, UsageError, "NoSuchHook"),
        ({"device": "cuda:7"}, UsageError, "cuda:7"),
    ],
)
def test_unusable_input_is_refused_and_nothing_is_written(
    settings: dict[str, Any], change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        compress(config_of({**settings, **change}))
    assert not Path(settings["output"]).exists()
    assert not Path(f"{settings['output']}.run").exists()


def test_two_processes_do_not_share_a_run(settings: dict[str, Any], tmp_path: Path) -> None:
    import subprocess
    import sys

    run = Path(f"{settings['output']}.run")
    script = (
        "import sys; from pathlib import Path; from anyblock.run.run_folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked():\n    print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=rf"in use by \w+, process {holder.pid} on .* minutes"):
            compress(config_of(settings))
        holder.kill()
        holder.wait()
    with RunFolder(run).locked():
        pass
