"""The page's data, and what the command refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise, product
from pathlib import Path

import pytest
import yaml
from anyblock import compress
from anyblock.config.load import load_config
from anyblock.errors import ExecutionError, InputError, OutputExistsError, UsageError
from anyblock.progress import Events
from anyblock_html_report.command import main
from anyblock_html_report.front import Options, options, predicted_front, uniform_front
from anyblock_html_report.page import render
from anyblock_html_report.run import label_of, read_run
from anyblock_html_report.texts import shown_texts
from anyblock_html_report.views import curves, damage, layers, training, verdict, view_of, waterfall
from anyblock_tests.pages import blocks_of

KINDS = ("dense", "sparse", "hybrid", "vision")
HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">&amp;"


def summary(path: Path) -> dict:
    return json.loads((path / "summary.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_the_views_say_what_the_files_say(kind: str, runs: dict[str, Path]) -> None:
    run, said = read_run(runs[kind]), summary(runs[kind])
    assert run.finished
    assert run.missing == []
    own, teacher = said["costs"]["params"], said["teacher_costs"]["params"]
    text = "".join(part for part, _ in verdict(run))
    assert f"{own / teacher:.1%}" in text
    assert f"{said['quality']['top1']:.1%}" in text
    rows = layers(run)
    removed = sum(half.get("removed", {}).get("params", 0.0) for row in rows for half in row.values())
    assert removed == teacher - own  # what the layers lost is what the model lost
    for row, mine, before in zip(rows, said["block_configs"], said["teacher_block_configs"], strict=True):
        for half in ("attention", "ffn"):
            assert (row[half]["child"] != row[half]["teacher"]) == (mine[half] != before[half])
            assert (row[half]["share"] < 1) == (mine[half] != before[half] or before[half]["no_op"])
    view = view_of(run)
    assert view["front"]["params"]["points"][-1][:2] == [own, said["quality"]["kl_per_token"]]
    assert [stage["name"] for stage in view["stages"]] == [stage["name"] for stage in said["stages"]]


@pytest.mark.parametrize("kind", KINDS)
def test_the_heat_map_has_every_score_once_and_every_choice(kind: str, runs: dict[str, Path]) -> None:
    run = read_run(runs[kind])
    shown = {
        f"block_{layer}_{half['half']}:{row['label']}": score
        for half in damage(run)
        for row in half["rows"]
        for layer, score in enumerate(row["scores"])
        if score is not None and row["label"] != "teacher"
    }
    assert run.scores is not None
    assert shown == {key: pytest.approx(score, rel=1e-3) for key, score in run.scores.items()}
    chosen = {
        f"block_{layer}_{half['half']}": label
        for half in damage(run)
        for layer, label in enumerate(half["chosen"])
        if label is not None
    }
    assert chosen == run.choices


def test_the_front_is_what_trying_every_choice_finds(runs: dict[str, Path]) -> None:
    groups = options(read_run(runs["dense"]))[:5]
    tried = [
        (sum(point.cost for point in choice), sum(point.score for point in choice))
        for choice in product(*(group.points("params") for group in groups))
    ]
    front = predicted_front(groups, "params", 0.0)
    assert len(front) > 3
    for point in front:
        assert point.score == pytest.approx(min(score for cost, score in tried if cost <= point.cost + 1e-6))


def test_storage_types_are_part_of_candidates(stored: Path) -> None:
    run = read_run(stored)
    view = view_of(run)
    assert not [line for line in run.missing if "scores" in line or "chosen" in line]
    chosen = {
        f"block_{layer}_{half['half']}": label for half in view["damage"] for layer, label in enumerate(half["chosen"])
    }
    said = summary(stored)["costs"]["bytes"] / 1024
    assert f"its file takes {said:.3g} KiB" in "".join(part for part, _ in verdict(run))
    assert chosen == {group: label for group, label in run.choices.items() if group.startswith("block")}
    for index, halves in enumerate(view["layers"]):
        for half, row in halves.items():
            storage = run.choices[f"block_{index}_{half}"].partition("@")[2]
            assert row["child"].endswith(f" in {storage}") if storage else row["child"] == "removed"
            assert row["removed"].get("bytes", 0) > 0 or storage == "q8_0"
    front = view["front"]["bytes"]
    searched = [(cost, score) for cost, score, kind, _ in front["points"] if kind == "predicted"]
    for cost, score in searched:
        smaller = [damage for size, damage in front["predicted"] if size <= cost]
        assert smaller
        assert min(smaller) >= score * (1 - 1e-3)
    assert [name for _, _, name in front["quantized"]] == ["q8_0", "q5_0", "q4_0"]
    costed, scores = run.candidates, run.scores
    assert costed is not None
    assert scores is not None
    size = costed["fixed"]["bytes"] + sum(names["q4_0"] for names in costed["outside"].values())
    rows = [row for row in costed["candidates"] if label_of(row["candidate"]) == "teacher@q4_0"]
    assert front["quantized"][-1][0] == size + sum(row["costs"]["bytes"] for row in rows)
    assert front["quantized"][-1][1] == pytest.approx(
        sum(score for key, score in scores.items() if key.endswith(("teacher@q4_0", "s@q4_0", "d@q4_0"))), rel=1e-6
    )


def test_uniform_children_have_one_label_per_half() -> None:
    costs = [{"params": 4.0}, {"params": 2.0}]
    groups = [
        Options("block_0_ffn", "ffn", ["teacher", "a"], costs, [0.0, 0.5]),
        Options("block_1_ffn", "ffn", ["teacher", "a"], costs, [0.0, 0.25]),
        Options("block_1_attention", "attention", ["teacher"], costs[:1], [0.0]),
    ]
    assert [tuple(point) for point in uniform_front(groups, "params", 1.0)] == [
        (13.0, 0.0, "ffn teacher, attention teacher"),
        (9.0, 0.75, "ffn a, attention teacher"),
    ]


def test_each_step_of_the_waterfall_begins_where_the_one_before_ended(runs: dict[str, Path]) -> None:
    bars = waterfall(read_run(runs["dense"]))
    assert {bar["text"] for bar in bars} == {"scoring text", "held-out text", "evaluation text"}
    for before, bar in pairwise(bars):
        if "from" in bar:
            assert bar["text"] == before["text"]
            assert bar["from"] == pytest.approx(before["to"])
    assert bars[-1]["to"] == summary(runs["dense"])["quality"]["kl_per_token"]
    assert {stage["name"] for stage in training(read_run(runs["dense"]))} == {"repair", "distill-blocks"}


def test_the_curves_are_those_of_the_stage_that_trained(runs: dict[str, Path]) -> None:
    (stage,) = curves(read_run(runs["dense"]))
    said = json.loads(next((runs["dense"] / "stages").glob("*-distill-blocks/adapted.json")).read_text())["lines"]
    assert stage["name"] == "distill-blocks"
    assert [t["where"] for t in stage["trainings"]] == [f"layer {line['layer']}" for line in said]
    for training_, line in zip(stage["trainings"], said, strict=True):
        assert training_["loss"] == pytest.approx(line["curve"]["loss"], rel=1e-3)
        assert training_["held"][0] == [0, pytest.approx(line["before"], rel=1e-3)]
        assert min(error for _, error in training_["held"]) == pytest.approx(line["after"], rel=1e-3)
        assert training_["held"][-1][0] == training_["tokens"][-1] == stage["tokens"][-1]
    assert max(stage["rate"]) == 1e-3
    for kind in ("sparse", "hybrid", "vision"):  # repaired, not trained
        assert curves(read_run(runs[kind])) == []
        assert "Training curves" not in render([read_run(runs[kind])])


def test_lines_without_a_curve_or_with_another_one_draw_none(dense: Path) -> None:
    file = next((dense / "stages").glob("*-distill-blocks/adapted.json"))
    said = json.loads(file.read_text())
    for line, curve in zip(said["lines"], [None, {}, {"loss": [1.0]}] * len(said["lines"]), strict=False):
        line["curve"] = curve
    file.write_text(json.dumps(said))
    assert curves(read_run(dense)) == []
    assert "Training curves" not in render([read_run(dense)])


class Page(HTMLParser):
    """What a page loads, and the elements that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


def test_a_page_needs_nothing_else_and_is_small(runs: dict[str, Path], large: Path) -> None:
    for path in (*runs.values(), large):
        text = render([read_run(path)])
        assert all(place.startswith(("#", "data:")) for place in Page(text).loads)
        assert len(text.encode()) < 1_000_000


def test_names_and_texts_cannot_leave_their_place(dense: Path) -> None:
    before = Page(render([read_run(dense)])).tags
    said = summary(dense)
    said["teacher"] = said["command"] = HOSTILE
    said["notes"] = [HOSTILE, *said["notes"][1:]]
    (dense / "summary.json").write_text(json.dumps(said))
    (dense / "run.yaml").write_text((dense / "run.yaml").read_text() + f"# {HOSTILE}\n")
    for name in ("candidates", "scores", "search", "refine"):
        for file in next((dense / "stages").glob(f"*-{name}")).glob("*.json"):
            file.write_text(file.read_text().replace("ffn_intermediate", json.dumps(HOSTILE)[1:-1]))
    assert Page(render([read_run(dense)])).tags == before


def test_a_run_that_is_not_finished_shows_what_there_is(dense: Path) -> None:
    (dense / "summary.json").unlink()
    removed = [("evaluation", "evaluation"), ("child", ""), ("refine", ""), ("search", "search"), ("scores", "scores")]
    for stage, named in (*removed, ("candidates", "candidates")):
        shutil.rmtree(next((dense / "stages").glob(f"*-{stage}")))
        run = read_run(dense)
        assert not run.finished
        assert any(named in line for line in run.missing)
        assert "What is missing" in render([run])
    assert "stages are: data, teacher" in "".join(text for text, _ in verdict(run))


def test_a_run_folder_that_has_just_been_made(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("model: m\n")
    assert main([str(tmp_path)]) == 0
    assert "not finished" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("summary.json", "{"),
        ("summary.json", "[]"),
        ("summary.json", '{"block_configs": 3, "teacher_block_configs": []}'),
        ("summary.json", '{"block_configs": [], "stages": 4, "versions": {"anyblock": "9.9"}}'),
        ("stages/00-candidates/candidates.json", '{"blocks": [], "candidates": [{"candidate": {}}]}'),
        ("stages/06-scores/agreement.json", "{}"),
        ("stages/07-search/solutions.json", '[{"chosen": {}}]'),
        ("stages/08-refine/refinement.json", "{}"),
        ("stages/09-repair/adapted.json", "{}"),
        ("stages/12-evaluation/stage.json", "{}"),
        ("run.yaml", "- a"),
        ("texts.json", '{"child": "CHILD", "texts": [{}]}'),
        ("sweep-params/sweep.json", '[{"status": "gap", "costs.params": 1.0}]'),
    ],
)
def test_files_of_another_form_are_one_message(file: str, content: str, dense: Path) -> None:
    (dense / "report.html").unlink()
    (dense / file).parent.mkdir(exist_ok=True)
    (dense / file).write_text(content.replace("CHILD", read_run(dense).child))
    with pytest.raises(InputError, match=dense.name):
        main([str(dense)])
    assert not (dense / "report.html").exists()


def test_results_of_an_earlier_start_are_left_out(dense: Path) -> None:
    scores = next((dense / "stages").glob("*-scores")) / "scores.json"
    found = json.loads(scores.read_text())
    found.pop(next(iter(found)))
    scores.write_text(json.dumps(found))
    refined = next((dense / "stages").glob("*-refine")) / "refinement.json"
    refined.write_text(refined.read_text().replace("teacher", "ffn_intermediate=7"))
    run = read_run(dense)
    page = render([run])
    assert run.scores is None
    assert run.choices == {}
    assert page.count("the run was started again") == 2


def test_another_version_is_said(dense: Path) -> None:
    said = summary(dense)
    said["versions"]["anyblock"] = "0.3.1"
    (dense / "summary.json").write_text(json.dumps(said))
    assert "made by AnyBlock 0.3.1" in render([read_run(dense)])


def test_what_is_not_a_run_is_wrong_usage(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match=r"run\.yaml"):
            main([str(path)])
    done = subprocess.run(
        [sys.executable, "-m", "anyblock", "report", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "is not a run folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_but_an_earlier_report_is_replaced(dense: Path, tmp_path: Path) -> None:
    mine = tmp_path / "notes.html"
    mine.write_text("mine")
    with pytest.raises(OutputExistsError, match="not a report"):
        main([str(dense), "--out", str(mine)])
    assert mine.read_text() == "mine"
    with pytest.raises(UsageError, match="is a folder"):
        main([str(dense), "--out", str(tmp_path)])
    with pytest.raises(UsageError, match="no folder"):
        main([str(dense), "--out", str(tmp_path / "none" / "a.html")])
    assert main([str(dense), "--out", str(mine), "--overwrite"]) == 0
    assert main([str(dense), "--out", str(mine)]) == 0
    assert mine.read_text().startswith("<!doctype html>")
    with pytest.raises(ExecutionError, match="cannot be written"):
        main([str(dense), "--out", str(tmp_path / ("x" * 246 + ".html"))])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dense.run", "notes.html"]


def test_a_page_that_would_be_too_large_leaves_the_map_of_damage_out(huge: Path) -> None:
    text = render([read_run(huge)])
    assert 400_000 < len(text.encode()) < 1_000_000
    assert "larger than 1 MB" in text


def test_a_run_that_is_started_again_writes_its_page_anew_or_does_without(dense: Path, tmp_path: Path) -> None:
    events: list[dict] = []

    def again(*given: str) -> str:
        places = [f"run_dir={dense}", f"output={tmp_path / 'child'}"]
        compress(load_config(dense / "run.yaml", [*places, *given]), progress=Events(events.append))
        return (dense / "report.md").read_text()

    page = dense / "report.html"
    before = page.read_text()
    page.write_text(before.replace("Architecture", "of an earlier process"))
    assert "report.html" in again()
    assert "of an earlier process" not in page.read_text()
    page.unlink()
    assert "report.html" not in again("report.sections=[]")
    assert not page.exists()
    page.mkdir()
    assert "report.html" not in again("report.sections=null")
    said = [event["text"] for event in events if "report.html" in event.get("text", "")]
    assert len(said) == 1
    assert "no 'html' in the report" in said[0]


def test_the_run_makes_its_own_page(runs: dict[str, Path]) -> None:
    for path in runs.values():
        assert (path / "report.html").read_text() == render([read_run(path)])
        assert "[report.html](report.html)" in (path / "report.md").read_text()


def test_several_runs_are_compared(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*map(str, runs.values()), str(runs["dense"])]) == 0
    text = (tmp_path / "report.html").read_text()
    assert "4 runs compared" in text


def test_texts_of_equal_models_are_equal(dense: Path) -> None:
    recipe = yaml.safe_load((dense / "run.yaml").read_text())
    recipe["output"] = str(dense / "teacher")
    (dense / "run.yaml").write_text(yaml.safe_dump(recipe))
    assert main([str(dense), "--texts", "2"]) == 0
    found = json.loads((dense / "texts.json").read_text())
    assert len(found["texts"]) == 2
    assert all(row["teacher"] == row["child"] for row in found["texts"])
    assert found["divergence"]["kl"][0] is None
    assert max(found["divergence"]["kl"][1:]) < 1e-5


def test_the_first_token_that_differs_is_marked(dense: Path) -> None:
    assert main([str(dense), "--texts", "3"]) == 0
    shown = shown_texts(read_run(dense))
    assert shown is not None
    for row in shown["rows"]:
        assert row["teacher"][: row["same"]] == row["child"][: row["same"]]
        if row["same"] < len(row["teacher"]):
            assert row["teacher"][row["same"]] != row["child"][row["same"]]
    kl = [value for _, value, _ in shown["spans"] if value is not None]
    assert min(kl) >= 0 < max(kl)
    assert [value for *_, value in shown["worst"]] == sorted(kl, reverse=True)[: len(shown["worst"])]
    assert "<mark" in (dense / "report.html").read_text()
    child = next((dense / "stages").glob("*-child")) / "child.json"
    child.write_text('{"fingerprint": "another"}')
    page = render([read_run(dense)])
    assert "<mark" not in page
    assert "of an earlier child" in page


def test_texts_of_a_child_that_is_gone(dense: Path) -> None:
    recipe = yaml.safe_load((dense / "run.yaml").read_text())
    recipe["output"] = "owner/name"  # is not taken for a model on the hub
    (dense / "run.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(InputError, match=r"is not at owner/name"):
        main([str(dense), "--texts", "1"])


def test_the_commands_of_the_page_run(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, kind in (("child", "dense"), ("first", "dense"), ("second", "hybrid")):
        shutil.copytree(runs[kind], tmp_path / f"{name}.run")
    blocks = blocks_of(Path(__file__).parents[1] / "README.md")
    lines = [
        line.removeprefix("$ ").split()
        for language, text in blocks
        if language == "console"
        for line in text.splitlines()
    ]
    assert lines[0] == ["pip", "install", "anyblock-html-report"]
    for program, command, *arguments in lines[1:]:
        assert (program, command) == ("anyblock", "report")
        assert main(arguments) == 0
    assert (tmp_path / "child.run" / "report.html").is_file()
    assert len(json.loads((tmp_path / "child.run" / "texts.json").read_text())["texts"]) == 4
    assert "2 runs compared" in (tmp_path / "comparison.html").read_text()
