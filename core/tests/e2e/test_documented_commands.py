"""The README's tour and pages of core/docs: every command in them is run, in their order, on a small trained model."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
from pathlib import Path

import pytest
from anyblock.cli import app
from anyblock.family import get_family
from typer.testing import CliRunner

ROOT = Path(__file__).parents[3]
ASSET = ROOT / "core" / "tests" / "assets" / "tiny-llama"
MEANT = {  # what the capitals stand for; the sizes on the search page are those of a larger model
    "MODEL": "path/to/model",
    "CHILD": "path/to/child",
    "RUN": "path/to/child.run",
    "FILE": "text.txt",
    "TEXT": "text.txt",
    "HuggingFaceTB/SmolLM2-135M-Instruct": "path/to/model",
    "NAME": "transformers",
    "FAMILY": "llama",
    "...": "params=0.9x",
    "kv_heads>=20": "kv_heads>=6",
    "throughput=500tok/s": "throughput=1tok/s",  # whatever else the machine does meanwhile
}
SMALL = ["data.block_size=64", "data.calibration_tokens=512", "data.scoring_tokens=128", "data.evaluation_tokens=128",
         "search.refine_rounds=0"]  # fmt: skip
MORE = {"compress": SMALL, "conformance": ["--level", "structure"], "bench": ["--repeats", "1"]}
"""Arguments that keep a command short, after those that the page shows."""
BROUGHT = {"conformance": "anyblock_conformance", "bench": "anyblock_bench", "report": "anyblock_html_report",
           **dict.fromkeys(("init", "schema", "watch"), "anyblock_terminal")}  # fmt: skip
"""Commands of other distributions, which need not be installed."""


def run(command: str, *more: str) -> None:
    _, name, *rest = shlex.split(command)
    arguments = [MEANT.get(part, part).replace("OUT", f"out-{name}") for part in rest] + [*MORE.get(name, []), *more]
    done = CliRunner().invoke(app, [name, *arguments])
    assert done.exit_code == 0, f"{command}: {arguments}\n{done.output}\n{done.exception}"


@pytest.fixture
def in_a_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ASSET, tmp_path / "path" / "to" / "model")
    shutil.copy(ROOT / "demo" / "text" / "calibration.txt", tmp_path / "text.txt")
    return tmp_path


@pytest.mark.slow
def test_every_command_of_the_tour_runs(in_a_users_folder: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    lines = [
        line.removeprefix("$ ") for language, text in blocks if language == "console" for line in text.splitlines()
    ]
    commands = [line for line in lines if line.startswith("anyblock ")]
    commands += re.findall(r"`(anyblock [^`]+)`", readme.partition("**From a file.**")[0])
    assert len(commands) >= 13
    absent = {name for name, package in BROUGHT.items() if importlib.util.find_spec(package) is None}
    for command in commands:
        name = shlex.split(command)[1]
        # `push` needs a hub: the tests of anyblock-hub run it against one on this machine.
        if name != "push" and name not in absent:
            run(command)
    (yaml,) = (text for language, text in blocks if language == "yaml")
    (in_a_users_folder / "run.yaml").write_text(yaml)
    run("anyblock compress run.yaml output=path/to/other pruning.ffn.sizes=[0.25,0.5]")
    (python,) = (text for language, text in blocks if language == "python")
    exec(compile(python, "README.md", "exec"), {"__name__": "readme"})
    for command in commands_on("search.md"):
        run(command)


@pytest.mark.parametrize("page", ["choosing.md", "distillation.md", "latency.md", "memory.md", "tutorial.md"])
def test_commands_of_a_page_run(in_a_users_folder: Path, page: str) -> None:
    run_commands(page)


def test_commands_on_sparse_models_run(in_a_users_folder: Path) -> None:
    pytest.importorskip("anyblock_mixtral")
    tiny = pytest.importorskip("anyblock_conformance.tiny")
    shutil.rmtree(in_a_users_folder / "path" / "to" / "model")
    tiny.save_tiny(get_family("mixtral").conformance_config(), in_a_users_folder / "path" / "to" / "model")
    text = "\n".join(" ".join(f"w{(i * j) % 97}" for j in range(20)) for i in range(40))
    (in_a_users_folder / "text.txt").write_text(text)
    run_commands("sparse.md", "data.block_size=16")


def run_commands(page: str, *settings: str) -> None:
    commands = commands_on(page)
    assert commands
    absent = {name for name, package in BROUGHT.items() if importlib.util.find_spec(package) is None}
    for number, command in enumerate(commands):
        name = shlex.split(command)[1]
        if name not in absent:
            more = ("search.timing_rounds=1", *settings) if name == "compress" else ()
            run(command.replace(" OUT ", f" out-{number} "), *more)


def commands_on(page: str) -> list[str]:
    return re.findall(r"^\$ (anyblock .+)$", (ROOT / "core/docs" / page).read_text(encoding="utf-8"), re.MULTILINE)
