"""`anyblock init`: a YAML that `compress` takes, with a budget that fits the memory that was stated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from anyblock.cli import app, main
from anyblock.config import load_config
from anyblock_terminal import init as command
from anyblock_terminal.recipe import FREE_SHARE, fitting_budget, read_memory
from typer.testing import CliRunner

WEIGHTS, CACHE = 1_427_904, 589_824
"""Of the asset: bytes of its weights in bfloat16, and of a bfloat16 cache of 512 tokens, which is its context."""
GIVEN = ["--model", "teacher", "--data", "text.txt", "--length", "512"]


def init(*arguments: str, answers: str = "") -> Any:
    return CliRunner().invoke(app, ["init", *arguments], input=answers)


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command believe that a person answers; what it reads is the text that the test gives."""

    class Terminal:
        def isatty(self) -> bool:
            return True

    class Sys:
        stdin = Terminal()
        executable = command.sys.executable

    monkeypatch.setattr(command, "sys", Sys)


def test_the_budget_is_what_the_memory_leaves_for_weights_and_cache(folder: Path) -> None:
    done = init("run.yaml", *GIVEN[:4], "--memory", "1.8MB", "--purpose", "chat", "--output", "child")
    assert done.exit_code == 0, done.output
    text = (folder / "run.yaml").read_text()
    config = load_config(folder / "run.yaml")
    (bound,) = config.search.bounds()
    assert (bound.cost, bound.upper.relative) == ("memory", False)
    room = 1_800_000 * (1 - FREE_SHARE)
    assert room - 1024 < bound.upper.value <= room < WEIGHTS + CACHE
    assert (config.search.batch, config.search.length, config.search.cache_dtype) == (1, 512, "bfloat16")
    assert f"The child may take {room / (WEIGHTS + CACHE):.0%}" in text
    assert "the model was made for 512 tokens" in done.stderr
    schema = folder / "anyblock.schema.json"
    assert text.splitlines()[0] == f"# yaml-language-server: $schema=./{schema.name}"
    assert "search" in json.loads(schema.read_text())["properties"]


def test_the_cache_counts_as_often_as_sequences_are_served() -> None:
    budget, why = fitting_budget({"memory": 10 * 2**30, "kv_memory": 6 * 2**30}, 4 * 2**30)
    assert budget == {"memory": f"{int(4 * 2**20 * (1 - FREE_SHARE))}KiB"}
    assert "weights 4.0 GiB, cache 6.0 GiB" in why[0]
    assert "less than half" in why[-1]
    budget, why = fitting_budget({"memory": 2 * 2**30, "kv_memory": 2**30}, 4 * 2**30)
    assert budget == {"params": "0.8x"}
    assert "fits as it is" in why[-1]


def test_compress_takes_what_it_writes_and_keeps_the_budget(folder: Path) -> None:
    assert init("run.yaml", *GIVEN, "--memory", "1.8MB", "--output", "child").exit_code == 0
    small = [
        "data.block_size=64",
        "data.calibration_tokens=512",
        "data.scoring_tokens=128",
        "data.evaluation_tokens=128",
    ]
    done = CliRunner().invoke(app, ["compress", "run.yaml", *small, "search.refine_rounds=0"])
    assert done.exit_code == 0, done.output
    costs = json.loads((folder / "child.run" / "summary.json").read_text())["costs"]
    assert costs["memory"] <= 1_800_000 * (1 - FREE_SHARE)


@pytest.mark.parametrize("left_out", ["--model", "--data", "--memory"])
def test_without_a_terminal_it_says_which_options_are_missing(
    folder: Path, capsys: pytest.CaptureFixture[str], left_out: str
) -> None:
    given = {"--model": "teacher", "--data": "text.txt", "--memory": "1GiB"}
    del given[left_out]
    with pytest.raises(SystemExit) as stop:
        main(["init", *(part for pair in given.items() for part in pair)])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "no terminal" in said
    assert left_out in said.splitlines()[0]
    assert "--model, --data, and --memory or --budget" in said
    assert not (folder / "run.yaml").exists()


def test_a_person_is_asked_for_what_no_option_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_terminal(monkeypatch)
    answers = ["teacher", "chatting", "server", "auto", "much", "9 MB", "text.txt", ""]
    done = init("mine.yaml", "--length", "512", answers="\n".join(answers) + "\n")
    assert done.exit_code == 0, done.output
    config = load_config(folder / "mine.yaml")
    assert (config.model, config.output, config.search.batch) == ("teacher", "teacher-small", 16)
    assert "one of chat, documents, server" in done.output
    assert "'much' is not an amount of memory" in done.output


def test_nothing_is_replaced_unasked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "run.yaml"
    file.write_text("mine")
    done = init(*GIVEN, "--budget", "params=0.7x")
    assert (done.exit_code, file.read_text()) != (0, "mine")
    assert file.read_text() == "mine"
    assert init(*GIVEN, "--budget", "params=0.7x", "--overwrite").exit_code == 0
    assert load_config(file).search.budget == {"params": "0.7x"}
    file.write_text("mine")
    on_a_terminal(monkeypatch)
    assert init(*GIVEN, "--budget", "params=0.7x", answers="n\n").exit_code != 0
    assert file.read_text() == "mine"
    (folder / "anyblock.schema.json").write_text("{}")
    assert init("other.yaml", *GIVEN, "--purpose", "chat", "--device", "cpu", "--output", "c", "--budget",
                "params=0.7x").exit_code != 0  # fmt: skip
    assert (folder / "anyblock.schema.json").read_text() == "{}"
    assert not (folder / "other.yaml").exists()


def test_answers_that_make_no_run_write_nothing(folder: Path) -> None:
    before = sorted(folder.iterdir())
    for wrong in (["--budget", "parms=0.8x"], ["--memory", "8"], ["--memory", "1GiB", "--device", "gpu"],
                  ["--memory", "1GiB", "--purpose", "fun"], ["--memory", "1GiB", "--budget", "params=0.8x"]):  # fmt: skip
        assert init(*GIVEN, *wrong).exit_code != 0, wrong
    assert init("--model", "nowhere", "--data", "text.txt", "--memory", "1GiB").exit_code != 0
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("name", ["a: b", "yes", "#1", "it's", "ärger", "-", "{a}", "plain/name-1.5", "a\\b", '"'])
def test_every_name_is_read_back_as_it_was_given(name: str) -> None:
    from anyblock_terminal.recipe import Answers, recipe

    answers = Answers(name, "chat", "auto", None, ("params=0.8x",), name, name, 1, 512)
    about = {"model_type": "llama", "layers": 6, "adapter": "anyblock-llama 0.2.0"}
    found = yaml.safe_load(recipe(answers, about, "./s.json"))
    assert (found["model"], found["output"], found["data"]["path"]) == (name, name, name)


@pytest.mark.parametrize(("text", "size"), [("8GiB", 2**33), ("24 GB", 24 * 10**9), ("1.5MiB", 3 * 2**19)])
def test_amounts_of_memory(text: str, size: int) -> None:
    assert read_memory(text) == size
