"""`anyblock families` in an interpreter of its own: fast, without imports, and working when every plugin is broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from anyblock.cli.families import families
from anyblock.plugins import PluginRegistry
from typer.testing import CliRunner

# The command as it stands, without the rest of the command line.
RUN = (
    "import sys, typer; from anyblock.cli.families import families; app = typer.Typer(); app.command()(families); app()"
)
SPY = (
    "import sys, typer; from anyblock.cli.families import families; app = typer.Typer(); app.command()(families)\n"
    "try:\n    app(standalone_mode=False)\n"
    "finally:\n    sys.stderr.write('IMPORTED ' + ' '.join(sorted(sys.modules)))"
)


@pytest.fixture
def populated(site):
    """A good adapter, one of every status, and an extension."""
    site.module("good_plugin")
    serve = "good_plugin:Descriptor"
    site.distribution("anyblock-good", families={"good": serve})
    site.distribution("anyblock-blocked", families={"blocked": serve})
    site.distribution("anyblock-old", families={"old": serve}, requires=("anyblock<0.0.1",))
    site.distribution("anyblock-malformed", families={"malformed": "?"})
    site.distribution("anyblock-rival-a", families={"duck": serve})
    site.distribution("anyblock-rival-b", families={"duck": serve})
    site.distribution("anyblock-extra", extensions={"extra": serve})
    return site


def plugins(done) -> dict[str, dict]:
    assert done.stdout, done.stderr
    return {record["distribution"]: record for record in json.loads(done.stdout)["plugins"]}


def test_the_json_shows_every_status_with_a_reason(populated):
    done = populated.python("-c", RUN, "--json", ANYBLOCK_DISABLE_PLUGINS="anyblock-blocked")
    assert done.returncode == 0, done.stderr
    found = plugins(done)
    statuses = {name: record["status"] for name, record in found.items()}
    assert (
        statuses.items()
        >= {
            "anyblock-good": "ready",
            "anyblock-extra": "ready",
            "anyblock-blocked": "blocked",
            "anyblock-old": "incompatible",
            "anyblock-malformed": "failed",
            "anyblock-rival-a": "conflicting",
            "anyblock-rival-b": "conflicting",
        }.items()
    )
    for record in found.values():
        assert bool(record["reason"]) == (record["status"] != "ready")
    assert found["anyblock-good"] == {
        "distribution": "anyblock-good",
        "version": "1.0",
        "group": "anyblock.families",
        "names": ["good"],
        "model_types": ["good"],
        "requires_core": ">=0.1,<1",
        "status": "ready",
        "reason": "",
        "location": "",
    }
    data = json.loads(done.stdout)
    assert "good" in data["model_types"]
    assert "duck" not in data["model_types"]
    assert data["notices"] == []


def test_the_table_shows_the_same(populated):
    done = populated.python("-c", RUN, ANYBLOCK_DISABLE_PLUGINS="anyblock-blocked,anyblock-goood")
    assert done.returncode == 0
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert {"ready", "blocked", "incompatible", "failed", "conflicting"} <= set(lines)
    assert "anyblock-old" in lines["incompatible"]
    assert "extension: extra" in done.stdout
    assert "note: ANYBLOCK_DISABLE_PLUGINS names anyblock-goood, which is not installed" in done.stderr


def test_listing_imports_neither_torch_nor_transformers_nor_any_plugin(populated):
    for arguments in ((), ("--json",)):
        done = populated.python("-c", SPY, *arguments)
        modules = set(done.stderr.rpartition("IMPORTED ")[2].split())
        assert "anyblock.plugins" in modules
        assert not modules & {"torch", "transformers", "numpy", "huggingface_hub", "good_plugin", "anyblock_llama"}


def test_listing_works_when_every_plugin_is_broken(site, zoo):
    for path in zoo.glob("*.py"):
        site.module(path.stem, path.read_text(encoding="utf-8"))
        site.distribution(f"anyblock-{path.stem}", families={path.stem: f"{path.stem}:Descriptor"})
    environ = {"ANYBLOCK_PLUGINS": ",".join(f"anyblock-{path.stem}" for path in zoo.glob("*.py"))}
    done = site.python("-c", RUN, "--json", **environ)
    records = [record for record in plugins(done).values() if record["status"] != "blocked"]
    assert [record["status"] for record in records] == ["ready"] * len(list(zoo.glob("*.py")))

    done = site.python("-c", RUN, "--json", "--load", **environ)
    assert done.returncode == 0, done.stderr
    records = [record for record in plugins(done).values() if record["status"] != "blocked"]
    assert {record["status"] for record in records} == {"failed"}
    placed = [record for record in records if record["location"]]
    assert len(placed) > len(records) / 2
    for record in placed:
        path, _, line = record["location"].rpartition(":")
        assert Path(path).is_file()
        assert line.isdigit()
    assert site.python("-c", RUN, "--load", "--strict", **environ).returncode == 1


def test_what_a_plugin_prints_does_not_spoil_the_json(site):
    site.module("chatty", "print('hello')\nfrom anyblock.descriptors import DenseDescriptor as Descriptor\n")
    site.distribution("anyblock-chatty", families={"chatty": "chatty:Descriptor"})
    done = site.python("-c", RUN, "--json", "--load")
    assert plugins(done)["anyblock-chatty"]["status"] == "ready"
    assert "hello" in done.stderr


def test_strict_turns_a_fault_into_exit_code_1(site):
    site.distribution("anyblock-fine", families={"fine": "x:X"})
    environ = {"ANYBLOCK_PLUGINS": "anyblock-fine,anyblock-old"}
    assert site.python("-c", RUN, "--strict", ANYBLOCK_PLUGINS="anyblock-fine").returncode == 0
    assert site.python("-c", RUN, "--strict", **environ).returncode == 1
    site.distribution("anyblock-old", families={"old": "x:X"}, requires=("anyblock<0.0.1",))
    assert site.python("-c", RUN, **environ).returncode == 0
    assert site.python("-c", RUN, "--strict", **environ).returncode == 1
    assert site.python("-c", RUN, ANYBLOCK_STRICT_PLUGINS="1", **environ).returncode == 1


def test_an_empty_allow_list_blocks_everything(populated):
    done = populated.python("-c", RUN, "--json", "--strict", ANYBLOCK_PLUGINS="")
    assert done.returncode == 0
    assert {record["status"] for record in plugins(done).values()} == {"blocked"}


def test_with_nothing_installed_it_says_what_to_install(monkeypatch):
    app = typer.Typer()
    app.command()(families)
    monkeypatch.setattr(PluginRegistry, "discover", lambda settings: PluginRegistry.from_plugins({}))
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 0
    assert "pip install anyblock-llama" in result.stdout


def test_a_plugin_that_fails_where_nothing_else_speaks_for_it_is_named_with_the_place(site, tmp_path):
    site.module(
        "own_words",
        "from anyblock.contract.config_dialect import ConfigDialect\n"
        "from anyblock.contract.hookspecs import hookimpl\n"
        "class Words(ConfigDialect):\n"
        "    summary = 'words'\n"
        "    def matches(self, tree, tools):\n"
        "        raise LookupError('no such word')\n"
        "    def translate(self, tree, tools):\n"
        "        return tree\n"
        "class Extension:\n"
        "    @hookimpl\n"
        "    def config_dialects(self):\n"
        "        return {'words': Words}\n",
    )
    site.distribution("anyblock-words", "3.1", extensions={"words": "own_words:Extension"})
    (tmp_path / "run.yaml").write_text("model: a\noutput: b\n")
    done = site.python("-m", "anyblock", "compress", str(tmp_path / "run.yaml"))
    assert done.returncode == 1
    assert "plugin anyblock-words 3.1 failed: LookupError: no such word" in done.stderr
    assert "own_words.py:6)" in done.stderr
    assert "internal error" not in done.stderr


def test_an_unreadable_distribution_elsewhere_does_not_stop_the_conformance_command(site):
    """`importlib.metadata.entry_points` raises for everybody over one file that is not text."""
    (site.distribution("unrelated") / "entry_points.txt").write_bytes(b"\xff\xfe\x00[console_scripts]")
    suite = site.distribution("anyblock-conformance", entry_points="[anyblock.commands]\nconformance = suite:main\n")
    (site.root / "suite.py").write_text("def main(arguments):\n    print('ran with', arguments)\n    return 3\n")
    done = site.python("-m", "anyblock", "conformance", "llama", "--full")
    assert (done.returncode, done.stdout) == (3, "ran with ['llama', '--full']\n"), (suite, done.stderr)
