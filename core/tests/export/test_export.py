"""`export_child` and the command: names, refusals, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from anyblock import export_child, extensions, get_family
from anyblock.cli import app
from anyblock.contract.export_format import ExportFormat
from anyblock.contract.hookspecs import hookimpl
from anyblock.contract.settings import Section
from anyblock.errors import OutputExistsError, PluginError, UnsupportedModelError, UsageError
from anyblock.family import ModelFamily
from anyblock.plugins.known import BROUGHT_BY
from typer.testing import CliRunner


class Refusing(ExportFormat):
    summary = "nothing"

    def obstacles(self, child):
        return ["there is no tool that reads it"]

    def write(self, child, directory):
        raise AssertionError("written in spite of obstacles")


class Breaking(ExportFormat):
    summary = "half a file"

    def obstacles(self, child):
        return []

    def write(self, child, directory):
        (directory / "half").write_text("a")
        raise OSError(28, "No space left on device")


class Width(Section):
    width: int = 1


class Sized(ExportFormat):
    summary = "its own setting"
    settings = Width

    def obstacles(self, child):
        return []

    def write(self, child, directory):
        (directory / "width").write_text(str(self.settings_given.width))


class Buggy(Sized):
    def write(self, child, directory):
        (directory / "half").write_text("a")
        raise KeyError("rope")


class Silent(Sized):
    def obstacles(self, child):
        return None


class Extension:
    @hookimpl
    def export_formats(self):
        return {"refusing": Refusing, "breaking": Breaking, "sized": Sized, "buggy": Buggy, "silent": Silent}


def extended() -> ModelFamily:
    return ModelFamily.from_descriptor(get_family("llama").descriptor, model_type="llama", extensions=[Extension])


def test_a_child_that_cannot_be_expressed_is_refused_with_the_reason_and_the_formats_that_can(trained_child, tmp_path):
    with pytest.raises(UnsupportedModelError, match="no tool that reads it") as caught:
        export_child(trained_child, tmp_path / "out", "refusing", family=extended())
    assert "transformers" in caught.value.hint
    assert "refusing" not in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_nothing_behind(trained_child, tmp_path):
    with pytest.raises(Exception, match="No space left"):
        export_child(trained_child, tmp_path / "out", "breaking", family=extended())
    assert not list(tmp_path.iterdir())


def test_a_plugins_format_that_raises_is_named_with_the_place_and_one_that_says_nothing_is_refused(
    trained_child, tmp_path
):
    with pytest.raises(PluginError, match=r"format 'buggy' of .*Extension.* failed: KeyError: 'rope' \(.*\.py:\d+\)"):
        export_child(trained_child, tmp_path / "out", "buggy", family=extended())
    with pytest.raises(PluginError, match=r"format 'silent' of .*Extension.* returned a NoneType") as caught:
        export_child(trained_child, tmp_path / "out", "silent", family=extended())
    assert caught.value.expected == "a list of reasons"
    assert not list(tmp_path.iterdir())


def test_an_unknown_format_is_named(trained_child, tmp_path):
    with pytest.raises(UsageError, match="transformer'") as caught:
        export_child(trained_child, tmp_path / "out", "transformer")
    assert "'transformers'" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_output_is_not_overwritten_unasked(trained_child, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("a")
    with pytest.raises(OutputExistsError):
        export_child(trained_child, out, "transformers")
    assert [path.name for path in out.iterdir()] == ["mine"]
    export_child(trained_child, out, "transformers", overwrite=True)
    assert not (out / "mine").exists()


@pytest.mark.parametrize(("name", "distribution"), sorted(BROUGHT_BY["formats"].items()))
def test_a_format_of_a_missing_distribution_says_what_to_install(trained_child, tmp_path, name, distribution):
    bare = ModelFamily.from_descriptor(get_family("llama").descriptor, model_type="llama")
    with pytest.raises(UsageError) as caught:
        export_child(trained_child, tmp_path / "out", name, family=bare)
    assert caught.value.hint == f"python -m pip install {distribution}"


def test_settings_of_a_format_are_typed_and_reach_it(trained_child, tmp_path):
    with pytest.raises(UsageError, match="width: input should be a valid integer") as caught:
        export_child(trained_child, tmp_path / "out", "sized", family=extended(), settings={"width": "wide"})
    assert "settings: width" in caught.value.expected
    export_child(trained_child, tmp_path / "out", "sized", family=extended(), settings={"width": 7})
    assert (tmp_path / "out" / "width").read_text() == "7"


def test_the_commands_help_lists_every_format_with_what_reads_it(monkeypatch):
    monkeypatch.setattr(extensions, "installed_extensions", extended)
    shown = " ".join(CliRunner().invoke(app, ["export", "--help"]).output.split())
    for name, form in extended().export_formats().items():
        assert f"{name}: {form.summary}"[:40] in shown


def test_the_command_writes(trained_child: Path, tmp_path):
    arguments = ["export", str(trained_child), str(tmp_path / "out"), "--format", "transformers"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "modeling_anyblock.py").is_file()
