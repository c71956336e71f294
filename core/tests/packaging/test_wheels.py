"""The distributions as users get them: built, installed into a new environment, and run there from another folder."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TINY = ROOT / "core" / "tests" / "assets" / "tiny-llama"

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Installation:
    """A new environment with core and one adapter in it."""

    folder: Path
    wheels: dict[str, Path]

    def run(self, command: str, *arguments: str) -> str:
        """Run a command of the environment away from the repository and return what it prints."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ANYBLOCK"))}
        finished = subprocess.run(
            [str(self.folder / "bin" / command), *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**environment, "OMP_NUM_THREADS": "1"},
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Build both wheels without the network and install them into a new environment.

    Third-party packages are linked into it from this one, which saves downloading torch; AnyBlock's own are not, so that
    only the wheels can provide them.
    """
    folder = tmp_path_factory.mktemp("installation")
    sources = [str(ROOT / "core"), str(ROOT / "plugins" / "families" / "llama")]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder / "dist")]
    subprocess.run([*build, *sources], check=True, capture_output=True, text=True)
    wheels = {path.name.partition("-")[0]: path for path in (folder / "dist").glob("*.whl")}
    assert set(wheels) == {"anyblock", "anyblock_llama"}

    venv.create(folder / "env", symlinks=True)
    python = folder / "env" / "bin" / "python"
    (site,) = (folder / "env" / "lib").glob("python*/site-packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "anyblock" not in entry.name.lower() and entry.name != "__pycache__":
            (site / entry.name).symlink_to(entry)
    install = [*pip, "--python", str(python), "install", "--no-deps", "--no-index", *map(str, wheels.values())]
    subprocess.run(install, check=True, capture_output=True, text=True)
    return Installation(folder / "env", wheels)


def test_wheels_hold_the_package_and_nothing_else(installation: Installation) -> None:
    """Every file of the package is in the wheel, data files and the type marker included; tests are not."""
    for name, source in (("anyblock", ROOT / "core"), ("anyblock_llama", ROOT / "plugins" / "families" / "llama")):
        package = source / "src" / name
        files = {path.relative_to(package.parent) for path in package.rglob("*") if path.is_file()}
        expected = {path.as_posix() for path in files if "__pycache__" not in path.parts}
        packed = zipfile.ZipFile(installation.wheels[name]).namelist()
        assert f"{name}/py.typed" in expected
        assert {entry for entry in packed if ".dist-info/" not in entry} == expected
        assert [entry for entry in packed if entry.endswith(".dist-info/licenses/LICENSE")]


@pytest.mark.parametrize(
    "project", sorted(ROOT.glob("*/pyproject.toml")) + sorted(ROOT.glob("plugins/*/*/pyproject.toml"))
)
def test_every_distribution_has_the_licence(project: Path) -> None:
    """A wheel can only hold a file of its own folder, so that each has a copy of the repository's."""
    assert (project.parent / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_core_comes_from_the_wheel(installation: Installation) -> None:
    """The environment's `anyblock` is the one just installed, of the version that the metadata says."""
    code = "import anyblock, importlib.metadata as m; print(anyblock.__file__, m.version('anyblock'), anyblock.__version__)"
    file, *versions = installation.run("python", "-c", code).split()
    assert Path(file).is_relative_to(installation.folder)
    assert set(versions) == {importlib.metadata.version("anyblock")}


def test_families_lists_the_adapter(installation: Installation) -> None:
    """The installed adapter is found through its entry point and is ready; no other one is there."""
    answer = json.loads(installation.run("anyblock", "families", "--json", "--load", "--strict"))
    assert [(record["distribution"], record["status"]) for record in answer["plugins"]] == [("anyblock-llama", "ready")]
    assert answer["model_types"] == ["llama"]


def test_a_checkpoint_can_be_converted(installation: Installation, tmp_path: Path) -> None:
    """The console script converts a real checkpoint, and the result can be inspected."""
    child = tmp_path / "converted"
    installation.run("anyblock", "convert", str(TINY), str(child))
    index = json.loads((child / "model.safetensors.index.json").read_text(encoding="utf-8"))
    config = json.loads((child / "config.json").read_text(encoding="utf-8"))
    assert len(config["block_configs"]) == config["num_hidden_layers"]
    assert all((child / file).is_file() for file in index["weight_map"].values())
    assert json.loads(installation.run("anyblock", "inspect", str(child), "--json"))["model_type"] == "llama"
