"""The page for adapter authors: every command and file on it is run, in its order, in an empty folder without a network."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "core" / "docs" / "write-an-adapter.md"
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r'(\w+)=(?:"([^"]*)"|(\S+))|(\w+)')
TWINE = """
import sys, tarfile, zipfile
from pathlib import Path

def main():
    command, *files = sys.argv[1:]
    assert command == "upload" and len(files) == 2, sys.argv
    for file in map(Path, files):
        names = zipfile.ZipFile(file).namelist() if file.suffix == ".whl" else tarfile.open(file).getnames()
        assert any(name.endswith("anyblock_arcee/__init__.py") for name in names), names
        print("uploaded", file.name)
"""


@dataclass
class Block:
    language: str
    text: str
    options: dict[str, str] = field(default_factory=dict)


def blocks() -> list[Block]:
    found = []
    for language, rest, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        options = {name or flag: quoted or plain for name, quoted, plain, flag in OPTION.findall(rest)}
        found.append(Block(language, text, options))
    return found


def wheel_of_twine(folder: Path) -> None:
    """Write a distribution that stands in for twine: it looks at what it is to upload."""
    files = {
        "twine.py": TWINE,
        "twine-9.dist-info/METADATA": "Metadata-Version: 2.1\nName: twine\nVersion: 9\n",
        "twine-9.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "twine-9.dist-info/entry_points.txt": "[console_scripts]\ntwine = twine:main\n",
    }
    record = ""
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(text.encode())}\n"
    with zipfile.ZipFile(folder / "twine-9-py3-none-any.whl", "w") as wheel:
        for name, text in {**files, "twine-9.dist-info/RECORD": record + "twine-9.dist-info/RECORD,,\n"}.items():
            wheel.writestr(name, text)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An environment in which pip finds what is installed here, and no index."""
    pytest.importorskip("hatchling", reason="the page builds a distribution: install anyblock-conformance[author]")
    pytest.importorskip("editables", reason="the page installs in place: install anyblock-conformance[author]")
    links, home, commands = (tmp_path_factory.mktemp(name) for name in ("links", "home", "commands"))
    wheel_of_twine(links)
    # pip takes the value of no-build-isolation for that of build-isolation (pypa/pip issue 5735).
    pip = f"[global]\nno-index = true\nfind-links = {links}\n[install]\nno-build-isolation = false\n"
    (home / "pip.conf").write_text(pip)
    for name in ("anyblock", "hatchling"):  # what pip finds installed already gets no command in the new environment
        (commands / name).write_text(f'#!/bin/sh\nexec python -m {name} "$@"\n')
        (commands / name).chmod(0o755)
    installed = [path for path in sys.path if path and Path(path).is_dir() and "lib-dynload" not in path]
    library = str(Path(os.__file__).parent)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "PYTEST", "VIRTUAL_ENV", "COV"))
    }
    return kept | {
        "PYTHONPATH": os.pathsep.join(
            path for path in installed if path != library and path != str(Path(__file__).parent)
        ),
        "PIP_CONFIG_FILE": str(home / "pip.conf"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PATH": f"{commands}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "MODEL": str(home / "model"),
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "200",
    }


SHELL = """\
[ -f "$STATE" ] && . "$STATE"
set -eo pipefail
trap 'code=$?; { echo "cd \\"$PWD\\""; export -p; } > "$STATE"; exit $code' EXIT
"""
"""The shell that a block is run in goes on in the folder and with the variables that the block before left."""


def run(script: str, folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Run a block; returns the exit code and what it printed."""
    (folder / "block.sh").write_text(SHELL + script)
    done = subprocess.run(
        ["bash", str(folder / "block.sh")],
        cwd=folder,
        env=environment | {"STATE": str(folder / "state.sh")},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_the_page_leads_from_an_empty_folder_to_a_published_adapter(environment, tmp_path):
    from anyblock_conformance.tiny import save_tiny
    from transformers import ArceeConfig

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    save_tiny(ArceeConfig(vocab_size=64, num_hidden_layers=12, **sizes), Path(environment["MODEL"]))
    root, printed = tmp_path / "anyblock-arcee", ""
    for number, block in enumerate(blocks()):
        if "file" in block.options:
            path = root / block.options["file"]
            assert path.parent.is_dir(), f"the page has not made the folder of {path.name}"
            path.write_text(block.text, encoding="utf-8")
        elif "shown" in block.options:
            assert block.text.strip() in printed, printed
        else:
            assert block.language == "sh", (
                f"block {number} ({block.language}) says neither what file it is nor that it is run"
            )
            code, printed = run(block.text, tmp_path, environment)
            assert code == int(block.options.get("exit", "0")), f"{block.text}\n{printed}"
            assert block.options.get("shows", "") in printed, f"{block.text}\n{printed}"
    assert sorted(path.suffix for path in (root / "dist").iterdir()) == [".gz", ".whl"]
    assert "uploaded anyblock_arcee-0.1.0-py3-none-any.whl" in printed
    source = (root / "src" / "anyblock_arcee" / "__init__.py").read_text()
    assert len(source.splitlines()) <= 60


def test_every_block_of_the_page_is_run_written_or_compared():
    found = blocks()
    assert len(found) == PAGE.read_text(encoding="utf-8").count("\n```") // 2
    assert all(block.language == "sh" or block.options.keys() & {"file", "shown"} for block in found)
    assert sum(block.language == "sh" for block in found) >= 8
