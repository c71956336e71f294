"""`run_conformance` and the entry for pytest."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from anyblock.errors import UnsupportedModelError, UsageError
from anyblock.family import ModelFamily
from anyblock_conformance import run_conformance
from anyblock_conformance.outcome import Outcome
from anyblock_conformance.registry import all_checks
from mutants.build import NoOpForgetsTheCache
from mutants.good import Dense

HERE = Path(__file__).parent


def test_a_descriptor_a_class_a_family_and_a_name_are_all_adapters():
    for adapter in (Dense, Dense(), ModelFamily.from_descriptor(Dense, model_type="llama")):
        report = run_conformance(adapter, levels=["structure"])
        assert report.passed
        assert report.model_type == "llama"
    with pytest.raises(UnsupportedModelError, match="nosuch"):
        run_conformance("nosuch")


def test_every_check_is_planned():
    report = run_conformance(Dense, levels=["structure", "convert"])
    planned = [check.id for check in all_checks() if check.level in ("structure", "convert")]
    assert [result.id for result in report.results] == planned


def test_unknown_levels_are_refused():
    with pytest.raises(UsageError, match="did you mean 'search'"):
        run_conformance(Dense, levels=["serach"])


def test_an_announced_failure_makes_the_report_pass_and_stays_visible():
    reason = "the cache of this toy is not advanced, which issue 12 is about"
    report = run_conformance(
        NoOpForgetsTheCache,
        levels=["structure", "convert", "build"],
        expected_failures={"build.cached-decoding": reason},
    )
    assert report.passed
    (found,) = [result for result in report.results if result.outcome is Outcome.XFAILED]
    assert reason in found.message
    assert report.counts["xfailed"] == 1


def test_the_command_to_reproduce_names_a_descriptor_that_is_not_installed():
    command = run_conformance(Dense, levels=["structure"]).command
    assert command.startswith('python -c "import anyblock_conformance as c, mutants.good as a; ')
    assert "c.run_conformance(a.Dense)" in command


THREE_LINES = """\
import sys; sys.path.insert(0, {here!r})
from mutants.{module} import {name}
from anyblock_conformance.pytest import conformance_tests

test_conformance = conformance_tests({name}{options})
"""


def run_pytest(folder: Path, module: str, name: str, options: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "test_toy.py").write_text(THREE_LINES.format(here=str(HERE), module=module, name=name, options=options))
    arguments = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-rA",
        "-q",
        "--import-mode=importlib",
        "test_toy.py",
    ]
    return subprocess.run(arguments, capture_output=True, text=True, cwd=folder, check=False)


def outcomes(text: str) -> dict[str, str]:
    pattern = r"^(PASSED|FAILED|XFAIL|SKIPPED) \S*test_conformance\[(.+?)\](?: |$)"
    return {match[2]: match[1] for match in re.finditer(pattern, text, re.MULTILINE)}


def test_three_lines_run_every_check_and_every_level(tmp_path):
    done = run_pytest(tmp_path, "good", "Dense", ", levels=['structure', 'convert']")
    assert done.returncode == 0, done.stdout
    found = outcomes(done.stdout)
    report = run_conformance(Dense, levels=["structure", "convert"])
    assert set(found) == {result.id for result in report.results} | {"level:structure", "level:convert"}
    assert set(found.values()) == {"PASSED"}


def test_a_failure_shows_values_and_the_way_out_and_skips_what_depends_on_it(tmp_path):
    done = run_pytest(tmp_path, "structure_shapes", "DoublesTheFFNWidth")
    assert done.returncode == 1
    found = outcomes(done.stdout)
    assert [name for name, outcome in found.items() if outcome == "FAILED"] == [
        "structure.block-configs",
        "level:convert",
        "level:build",
        "level:prune",
        "level:search",
    ]
    assert "is [48, 16], expected [24, 16]" in done.stdout
    assert "How to fix: read each size" in done.stdout
    assert "not run because of structure.block-configs: failed" in done.stdout


def test_announced_failures_reach_pytest(tmp_path):
    options = ", levels=['structure'], expected_failures={'structure.hooks': 'the flag is a word, see issue 3'}"
    done = run_pytest(tmp_path, "structure", "AnswersYesInsteadOfTrue", options)
    assert done.returncode == 0, done.stdout
    assert "the flag is a word, see issue 3" in done.stdout
    wrong = run_pytest(
        tmp_path, "structure", "AnswersYesInsteadOfTrue", options.replace("structure.hooks", "structure.hook")
    )
    assert wrong.returncode != 0
    assert "did you mean 'structure.hooks'" in wrong.stdout
