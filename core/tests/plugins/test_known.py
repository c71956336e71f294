"""The message about an unsupported model, and the index of known adapters against what the plugins register."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from anyblock.cli import app, external
from anyblock.cli.external import KNOWN
from anyblock.config.budget import parse_bound
from anyblock.config.load import load_config
from anyblock.errors import ConfigError, UnsupportedModelError, UsageError
from anyblock.extensions import installed_extensions
from anyblock.family import get_family
from anyblock.plugins import PluginRegistry, known_adapters
from anyblock.plugins.known import BROUGHT_BY
from typer.testing import CliRunner


@pytest.fixture
def workspace() -> Path:
    """The root of the repository; these tests need the plugins' folders beside core."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "plugins").is_dir() and (folder / "core" / "scripts").is_dir():
            return folder
    pytest.skip("core stands alone here")


def test_the_index_is_what_the_plugins_register(workspace):
    script = workspace / "core" / "scripts" / "update_known_index.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_script_writes_the_index_and_refuses_two_claims(workspace, tmp_path):
    script = workspace / "core" / "scripts" / "update_known_index.py"
    for name in ("one", "two"):
        folder = tmp_path / "plugins" / "families" / name
        folder.mkdir(parents=True)
        (folder / "pyproject.toml").write_text(
            f'[project]\nname = "acme-{name}"\n[project.entry-points."anyblock.families"]\n{name} = "m:A"\n'
        )
    index = tmp_path / "known.json"
    command = [sys.executable, str(script), "--plugins", str(tmp_path / "plugins"), "--index", str(index)]
    assert subprocess.run([*command, "--check"], capture_output=True, check=False).returncode == 1
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert index.read_text() == '{\n  "one": "acme-one",\n  "two": "acme-two"\n}\n'
    assert subprocess.run([*command, "--check"], capture_output=True, check=False).returncode == 0
    (tmp_path / "plugins" / "families" / "two" / "pyproject.toml").write_text(
        '[project]\nname = "acme-two"\n[project.entry-points."anyblock.families"]\none = "m:A"\n'
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "acme-one" in done.stderr
    assert "acme-two" in done.stderr


def refusal(model_type: str, *installed: str) -> str:
    registry = PluginRegistry.from_plugins(dict.fromkeys(installed, object()))
    with pytest.raises(UnsupportedModelError) as caught:
        get_family(model_type, registry=registry)
    return str(caught.value)


def test_a_known_adapter_that_is_not_installed_is_one_command_away():
    assert "pip install anyblock-llama" in refusal("llama", "other")


def test_the_nearest_names_are_offered_with_how_to_get_them():
    message = refusal("lamma", "gemma")
    assert "'llama' (pip install anyblock-llama)" in message
    assert "'gemma' (installed)" in message
    assert "write an adapter, say anyblock-lamma" in message
    assert "one of the installed: gemma" in message
    assert "'llama' (pip install anyblock-llama)" in refusal("LLAMA")


def test_a_name_like_no_other_gets_the_way_to_write_an_adapter(workspace):
    message = refusal("zqx_9")
    assert "nearest" not in message
    assert "write an adapter, say anyblock-zqx-9" in message
    (page,) = re.findall(r"core/docs/[\w-]+\.md", message)
    assert (workspace / page).is_file()
    assert advised(message) == {"new-family"}


def advised(text: str) -> set[str]:
    """Return the commands that a text advises."""
    return set(re.findall(r"`anyblock ([a-z][a-z-]+)", text))


def test_every_command_that_any_message_or_page_advises_exists(workspace):
    from anyblock.cli import app
    from anyblock.cli.external import KNOWN

    commands = {info.name or info.callback.__name__.replace("_", "-") for info in app.registered_commands} | set(KNOWN)
    assert {"new-family", "compress", "conformance"} <= commands
    sources = [*(workspace / "core" / "src").rglob("*.py"), *(workspace / "core" / "docs").glob("*.md")]
    sources += [workspace / "README.md", workspace / "CONTRIBUTING.md"]
    found = {command for path in sources for command in advised(path.read_text(encoding="utf-8"))}
    assert "new-family" in found
    assert found - commands == set()


def test_the_index_is_sorted_and_complete():
    known = known_adapters()
    assert list(known) == sorted(known)
    assert known["llama"] == "anyblock-llama"


def test_a_cost_of_a_missing_distribution_says_what_to_install(monkeypatch):
    monkeypatch.setenv("ANYBLOCK_DISABLE_PLUGINS", "anyblock-latency")
    for name, distribution in BROUGHT_BY["costs"].items():
        with pytest.raises(ConfigError, match=f"the cost '{name}' comes with the distribution") as caught:
            parse_bound(name, "2x")
        assert caught.value.hint == f"python -m pip install {distribution}"
        with pytest.raises(UsageError) as caught:
            installed_extensions().one("costs", name)
        assert caught.value.hint == f"python -m pip install {distribution}"


@pytest.mark.parametrize(("command", "distribution"), [(name, about[0]) for name, about in sorted(KNOWN.items())])
def test_a_command_of_a_missing_distribution_says_what_to_install(monkeypatch, command, distribution):
    monkeypatch.setattr(external, "installed_entries", dict)
    done = CliRunner().invoke(app, [command, "x"])
    assert isinstance(done.exception, UsageError)
    assert done.exception.hint == f"python -m pip install {distribution}"


def test_a_section_of_a_missing_distribution_says_what_to_install(monkeypatch):
    monkeypatch.setenv("ANYBLOCK_DISABLE_PLUGINS", "anyblock-distillation")
    overrides = ["model=m", "output=o", "distillation.blocks.enabled=true"]
    with pytest.raises(ConfigError, match=r"distillation.*python -m pip install anyblock-distillation"):
        load_config(None, overrides)


def test_an_unknown_target_lists_those_known_and_a_missing_one_says_what_to_install(monkeypatch):
    def of(name):
        return load_config(None, [f"pruning.sizes_for={name}"], {"model": "m", "output": "o"})

    assert [of(name).pruning.sizes_for for name in ("gguf", "llama.cpp", "vllm")] == ["gguf", "llama.cpp", "vllm"]
    with pytest.raises(ConfigError, match=r"pruning\.sizes_for: there is no export format 'llamacpp'") as caught:
        of("llamacpp")
    assert {"gguf", "llama.cpp", "nemotron-nas", "transformers", "vllm"} <= set(caught.value.expected.split(", "))
    assert "'llama.cpp'" in caught.value.hint
    monkeypatch.setenv("ANYBLOCK_DISABLE_PLUGINS", "anyblock-gguf")
    with pytest.raises(ConfigError, match=r"'llama.cpp' comes with the distribution anyblock-gguf") as caught:
        of("llama.cpp")
    assert caught.value.hint == "python -m pip install anyblock-gguf"
