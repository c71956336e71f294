"""The examination: what it sees here, what it finds wrong, and the commands it gives."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from anyblock.cli.doctor import doctor
from anyblock.doctor import Diagnosis, Examined, finding, machine, packages
from anyblock.doctor.machine import examine_hub
from anyblock.doctor.packages import examine_packages, unmet
from anyblock.doctor.plugins import examine_plugins
from anyblock.plugins import PluginRegistry, PluginSettings
from typer.testing import CliRunner

RUN = "import typer; from anyblock.cli.doctor import doctor; app = typer.Typer(); app.command()(doctor); app()"
PIP = f"{sys.executable} -m pip"


TORCH = """
__version__ = "2.13"
get_num_threads = lambda: 3
class cuda:
    is_available = staticmethod(lambda: False)
class version:
    cuda = None
class backends:
    class mps:
        is_available = staticmethod(lambda: False)
"""


def run(site: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command with a folder at the head of the path."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("ANYBLOCK_")}
    env = {**inherited, "PYTHONPATH": str(site), "COLUMNS": "200", **environ}
    return subprocess.run([sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, env=env, check=False)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def distribution(site: Path, name: str, version: str, entry_points: str = "", requires: str = "anyblock>=0.1") -> None:
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    write(info / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: {requires}\n")
    if entry_points:
        write(info / "entry_points.txt", entry_points)


@pytest.fixture
def light(tmp_path: Path) -> Path:
    """A folder with stand-ins that import at once, so that a test about something else need not wait for torch."""
    write(tmp_path / "torch.py", TORCH)
    write(tmp_path / "transformers.py", "AutoConfig = AutoModelForCausalLM = None\n")
    return tmp_path


@pytest.mark.slow
def test_this_environment_is_described_with_the_real_torch(tmp_path):
    done = run(tmp_path, "--json", ANYBLOCK_PLUGINS="anyblock-llama")
    data = json.loads(done.stdout)
    assert (done.returncode == 0) == data["healthy"] == (not data["findings"])
    assert data["packages"]["torch"] == importlib.metadata.version("torch")
    assert data["packages"]["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    assert data["compute"]["device"] in ("cpu", "cuda", "mps")
    assert data["compute"]["torch_threads"] >= 1
    assert not [found for found in data["findings"] if "torch" in found["what"]]


def test_a_healthy_environment_exits_with_0(light):
    done = run(light, "--json", ANYBLOCK_PLUGINS="anyblock-llama", HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(light / "hub"))
    data = json.loads(done.stdout)
    assert data["findings"] == []
    assert done.returncode == 0
    assert data["compute"]["torch_threads"] == 3
    assert 0 < data["machine"]["memory_available"] <= data["machine"]["memory_total"]
    assert data["machine"]["cpu_threads"] >= 1
    assert data["machine"]["disk_free_here"] > 0
    assert data["hub"] == {
        "cache": str(light / "hub"),
        "cached_models": 0,
        "offline": True,
        "disk_free_cache": data["hub"]["disk_free_cache"],
    }
    statuses = {record["distribution"]: record["status"] for record in data["plugins"]["plugins"]}
    assert statuses["anyblock-llama"] == "ready"

    text = run(light, ANYBLOCK_PLUGINS="anyblock-llama", HF_HUB_CACHE=str(light / "hub"))
    assert text.returncode == 0
    assert "Nothing is wrong." in text.stdout
    assert "anyblock-llama" in text.stdout
    assert "GiB" in text.stdout


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise ImportError('libcudart.so.12: cannot open')", "torch cannot be imported: ImportError: libcudart"),
        ("raise SystemExit('gone')", "torch cannot be imported: SystemExit: gone"),
        ("import os; os._exit(7)", "torch cannot be imported: the interpreter ended with 7"),
        ("import os; os.abort()", "torch cannot be imported: the interpreter ended with -6"),
    ],
)
def test_a_broken_torch_is_found_and_hurts_nothing_else(light, source, words):
    write(light / "torch.py", source)
    done = run(light, "--json", ANYBLOCK_PLUGINS="anyblock-llama")
    assert done.returncode == 1
    data = json.loads(done.stdout)
    (found,) = data["findings"]
    assert words in found["what"]
    assert found["command"] == f"{PIP} install --force-reinstall torch"
    assert data["machine"]["memory_total"] > 0


def test_a_broken_transformers_is_found(light):
    write(light / "transformers.py", "raise RuntimeError('tokenizers is too old')\n")
    done = run(light, ANYBLOCK_PLUGINS="anyblock-llama")
    assert done.returncode == 1
    assert "1 to mend:" in done.stdout
    assert "transformers cannot be imported: RuntimeError: tokenizers is too old" in done.stdout
    assert f"{PIP} install --force-reinstall transformers" in done.stdout


def test_a_package_outside_the_required_range_is_found_with_the_command(light):
    distribution(light, "transformers", "4.40.0", requires="anyblock")
    data = json.loads(run(light, "--json", ANYBLOCK_PLUGINS="anyblock-llama").stdout)
    assert data["packages"]["transformers"] == "4.40.0"
    (found,) = data["findings"]
    assert found["what"].startswith("anyblock needs transformers")
    assert "4.40.0 is installed" in found["what"]
    assert found["command"].startswith(f"{PIP} install 'transformers")


def test_a_missing_package_is_found(monkeypatch):
    def without_torch(name: str) -> importlib.metadata.Distribution:
        if name == "torch":
            raise importlib.metadata.PackageNotFoundError(name)
        return importlib.metadata.distribution(name)

    monkeypatch.setattr(packages, "distribution", without_torch)
    section = examine_packages()
    assert section.facts["torch"] is None
    (found,) = section.findings
    assert "torch" in found.what
    assert "not installed" in found.what
    assert found.command.startswith(f"{PIP} install 'torch>=")


def test_core_without_its_metadata_and_metadata_of_another_core_are_found(monkeypatch):
    monkeypatch.setattr(packages, "VERSION", "0.0.7")
    (found,) = [found for found in examine_packages().findings if "0.0.7" in found.what]
    assert found.command == f"{PIP} install --force-reinstall --no-deps anyblock"

    def missing(name: str) -> importlib.metadata.Distribution:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages, "distribution", missing)
    (found,) = examine_packages().findings
    assert found.command == f"{PIP} install anyblock"


def test_requirements_of_extras_and_other_platforms_do_not_count():
    lines = [
        'nothing-like-it>=3; extra == "x"',
        'nothing-like-it; sys_platform == "amiga"',
        "pytest>=1",
        "not valid !!",
    ]
    assert unmet(lines) == []
    ((requirement, fault),) = unmet(['nothing-like-it>=3; python_version > "3"'])
    assert (str(requirement), fault) == ("nothing-like-it>=3", "which is not installed")


def examine(site: Path, **environ: str) -> Examined:
    found = importlib.metadata.distributions(path=[str(site)])
    settings = PluginSettings.from_env(environ)
    return examine_plugins(PluginRegistry.discover(settings, found=found, core_version="0.1.0"))


def commands(section: Examined) -> list[str]:
    return [found.command for found in section.findings]


def test_every_fault_of_a_plugin_comes_with_its_command(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "unloadable_plugin", raising=False)
    write(tmp_path / "unloadable_plugin.py", "raise OSError('no library')\n")
    write(tmp_path / "fine_plugin.py", "from anyblock.descriptors import DenseDescriptor as D\n")
    family = "[anyblock.families]\n"
    distribution(tmp_path, "acme-a-new", "1", f"{family}new = fine_plugin:D\n", requires="anyblock>=2")
    distribution(tmp_path, "acme-b-old", "1", f"{family}old = fine_plugin:D\n", requires="anyblock<0.1")
    distribution(tmp_path, "acme-c-broken", "1", f"{family}broken = unloadable_plugin:D\n")
    distribution(tmp_path, "acme-d-one", "1", f"{family}duck = fine_plugin:D\n")
    distribution(tmp_path, "acme-e-two", "1", f"{family}duck = fine_plugin:D\n")
    distribution(tmp_path, "acme-f-twice", "1.0", f"{family}twice = fine_plugin:D\n")
    distribution(tmp_path, "acme-f-twice", "2.0", f"{family}twice = fine_plugin:D\n")
    distribution(tmp_path, "acme-g-needs", "1", f"{family}needs = fine_plugin:D\n", requires="nothing-like-it>=3")
    section = examine(tmp_path, ANYBLOCK_DISABLE_PLUGINS="acme-x")
    assert commands(section) == [
        f"{PIP} install 'anyblock>=2'",
        f"{PIP} install --upgrade acme-b-old",
        f"{PIP} install --upgrade --force-reinstall acme-c-broken",
        "export ANYBLOCK_PREFER=duck=acme-d-one",
        "export ANYBLOCK_PREFER=duck=acme-e-two",
        f"{PIP} install --force-reinstall --no-deps acme-f-twice",
        f"{PIP} install 'nothing-like-it>=3'",
        "unset ANYBLOCK_DISABLE_PLUGINS",
    ]
    assert "unloadable_plugin.py:1" in section.findings[2].what
    # Following two of them mends them.
    mended = examine(tmp_path, ANYBLOCK_PREFER="duck=acme-d-one")
    assert len(mended.findings) == len(section.findings) - 3


def test_no_adapter_at_all_is_a_fault(tmp_path):
    assert commands(examine(tmp_path)) == [f"{PIP} install anyblock-llama"]


def test_a_blocked_plugin_is_no_fault(tmp_path):
    distribution(tmp_path, "acme-old", "1", "[anyblock.families]\nold = x:D\n", requires="anyblock<0.1")
    assert commands(examine(tmp_path, ANYBLOCK_DISABLE_PLUGINS="*")) == []


def test_a_cache_that_cannot_be_written_is_found(tmp_path, monkeypatch):
    from huggingface_hub import constants

    write(tmp_path / "file", "in the way")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    section = examine_hub()
    (found,) = section.findings
    assert "cannot be written" in found.what
    assert found.command.startswith("export HF_HOME=")
    (tmp_path / "hub" / "models--a--b").mkdir(parents=True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    section = examine_hub()
    assert (section.findings, section.facts["cached_models"]) == ([], 1)


def test_a_full_disk_is_found(monkeypatch):
    usage = machine.shutil.disk_usage(".")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage._replace(free=5 << 20))
    section = machine.examine_machine()
    assert all("are free in" in found.what for found in section.findings)
    assert len(section.findings) == 2


def test_an_answer_that_never_comes_is_a_fault(monkeypatch):
    def never(*arguments: object, **options: object) -> None:
        raise subprocess.TimeoutExpired("python", 1)

    monkeypatch.setattr(machine.subprocess, "run", never)
    (found,) = machine.examine_compute().findings
    assert "no answer" in found.what


def test_without_pip_the_commands_are_those_of_uv(monkeypatch):
    monkeypatch.setattr(finding, "find_spec", lambda name: None)
    assert finding.pip("install", "--force-reinstall", "a>=1") == (
        f"uv pip install --python {sys.executable} --reinstall 'a>=1'"
    )


def test_the_exit_code_follows_the_findings(monkeypatch):
    section = Examined("One", {"bytes_of_nothing": None, "memory_total": 2**31, "flag": True, "cuda": []})
    app = typer.Typer()
    app.command()(doctor)
    monkeypatch.setattr("anyblock.doctor.diagnose", lambda: Diagnosis({"one": section}))
    well = CliRunner().invoke(app, [])
    assert well.exit_code == 0
    assert "2.0 GiB" in well.stdout
    section.wrong("the [bold] wheel is square", "round it")
    ill = CliRunner().invoke(app, [])
    assert ill.exit_code == 1
    assert "the [bold] wheel is square" in ill.stdout
    assert "round it" in ill.stdout
