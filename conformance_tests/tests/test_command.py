"""The command: what it takes, its exit codes, and the files it writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from anyblock.errors import AnyBlockError, InputError, UnsupportedModelError, UsageError
from anyblock_conformance import __version__, command
from anyblock_conformance.report.files import read_report
from anyblock_conformance.run import run_conformance
from mutants.build import NoOpForgetsTheCache
from mutants.good import Dense


@pytest.fixture
def adapter(monkeypatch):
    """Make a descriptor the installed adapter for llama."""
    from anyblock.family import ModelFamily
    from anyblock_conformance import run, target

    def install(descriptor):
        family = ModelFamily.from_descriptor(descriptor, model_type="llama")
        monkeypatch.setattr(run, "get_family", lambda model_type: family)
        monkeypatch.setattr(target, "installed_plugins", lambda: type("Registry", (), {"model_types": ("llama",)}))

    return install


def test_a_family_is_checked_and_every_file_is_written(adapter, tmp_path, capsys):
    adapter(Dense)
    files = {name: tmp_path / name for name in ("report.json", "report.html", "badge.json")}
    options = [
        "--json",
        str(files["report.json"]),
        "--html",
        str(files["report.html"]),
        "--badge",
        str(files["badge.json"]),
    ]
    assert command.main(["llama", "--level", "structure", "--level", "convert", *options]) == 0
    report = read_report(files["report.json"])
    assert {result.level for result in report.results} == {"structure", "convert"}
    assert report.command == "anyblock conformance llama --level structure --level convert"
    assert report.versions["anyblock-conformance"] == __version__
    assert {"anyblock", "torch", "transformers", "python"} <= set(report.versions)
    assert "<!doctype html>" in files["report.html"].read_text()
    assert json.loads(files["badge.json"].read_text())["label"] == "anyblock llama"
    text = capsys.readouterr().out
    assert "conformance: passed" in text
    assert f"{len(report.results)} checks planned" in text


def test_a_fault_ends_with_one_and_shows_values_and_the_way_out(adapter, capsys):
    adapter(NoOpForgetsTheCache)
    assert command.main(["llama", "--level", "build"]) == 1
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "build.cached-decoding: false claim" in text
    assert "NoOpAttention.replacing" in text
    assert "attention of layer 0" in text
    assert "conformance: not passed" in text


def test_the_command_and_python_give_the_same_results(adapter, tmp_path):
    adapter(Dense)
    path = tmp_path / "report.json"
    command.main(["llama", "--level", "prune", "--json", str(path)])
    by_command = [(result.id, result.outcome) for result in read_report(path).results]
    by_python = run_conformance(Dense, levels=["prune"])
    assert by_command == [(result.id, result.outcome) for result in by_python.results]
    assert len(by_command) > 40


def test_two_reports_are_compared(adapter, tmp_path, capsys):
    paths = []
    for number, descriptor in enumerate([Dense, NoOpForgetsTheCache]):
        adapter(descriptor)
        paths.append(str(tmp_path / f"{number}.json"))
        command.main(["llama", "--level", "build", "--json", paths[-1]])
    capsys.readouterr()
    out = tmp_path / "diff.json"
    assert command.main(["--diff", *paths, "--json", str(out)]) == 1
    changed = {row["name"]: (row["before"], row["after"], row["worse"]) for row in json.loads(out.read_text())}
    assert changed["build.cached-decoding"] == ("passed", "false claim", True)
    assert command.main(["--diff", *reversed(paths)]) == 0
    assert command.main(["--diff", paths[0], paths[0]]) == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], UsageError),
        (["nosuchfamily"], UnsupportedModelError),
        (["llama", "--level", "bild"], UsageError),
        (["llama", "--full"], UsageError),
        (["llama", "--revision", "main"], UsageError),
        (["llama", "--diff", "a.json", "b.json"], UsageError),
        (["--diff", "/nowhere/a.json", "/nowhere/b.json"], InputError),
        (["./nowhere"], InputError),
    ],
)
def test_wrong_input_is_an_error_that_says_what_was_expected(adapter, arguments, error):
    if arguments != ["nosuchfamily"]:
        adapter(Dense)
    with pytest.raises(error) as caught:
        command.main(arguments)
    assert isinstance(caught.value, AnyBlockError)
    assert caught.value.expected or caught.value.hint


@pytest.mark.parametrize("arguments", [["--bogus"], ["llama", "extra"], ["--diff", "a.json"], ["llama", "--json"]])
def test_options_that_do_not_exist_end_with_two(arguments, capsys):
    assert command.main(arguments) == 2
    assert "Error: " in capsys.readouterr().err


def test_help_ends_with_zero(capsys):
    assert command.main(["--help"]) == 0
    assert "--badge" in capsys.readouterr().out


def test_comparing_reports_needs_no_torch(tmp_path):
    code = (
        "import sys; from anyblock_conformance.command import main\n"
        "try: main(['--diff', 'a.json', 'b.json'])\n"
        "except Exception as error: print(type(error).__name__, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.split() == ["InputError", "False"]


def test_checks_run_without_pytest():
    code = (
        "import sys; sys.modules['pytest'] = None; sys.path.insert(0, sys.argv[1])\n"
        "from anyblock_conformance import run_conformance; from mutants.good import Dense\n"
        "print(run_conformance(Dense, levels=['structure']).passed)"
    )
    folder = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"]


def test_core_finds_the_command(tmp_path):
    code = "from anyblock.cli import main; main(['conformance', '--diff', 'a.json', 'b.json'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "a.json cannot be read" in done.stderr
