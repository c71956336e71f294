"""Writing the distribution: everything is made next to its place first, and moved there when it is complete."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyblock
from anyblock.checkpoint.atomic import atomic_directory
from anyblock.errors import UsageError

from anyblock_new_family.introspection.facts import InferredFamily
from anyblock_new_family.source import class_name, comes_as_code, descriptor_source


def write_distribution(inferred: InferredFamily, destination: Path, *, overwrite: bool = False) -> Path:
    """Write a plugin distribution for an inferred family.

    The same facts give the same bytes.

    Raises:
        UsageError: there is something at the destination, or ruff, which formats the code, is not installed.
    """
    require_free(destination, overwrite=overwrite)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with atomic_directory(destination, overwrite=overwrite) as made:
        for path, text in files(inferred).items():
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            (made / path).write_text(text, encoding="utf-8")
        _format(made)
    return destination


def require_free(destination: Path, *, overwrite: bool = False) -> None:
    """Refuse a destination at which something is.

    Raises:
        UsageError: there is something, and it is not to be overwritten.
    """
    if destination.exists() and not overwrite:
        raise UsageError(f"{destination} exists", expected="a path at which nothing is", hint="--overwrite replaces it")


def files(inferred: InferredFamily) -> dict[str, str]:
    """Return every file's text by its path, the code unformatted."""
    model_type = inferred.model_type
    name, package = model_type.replace("_", "-"), f"anyblock_{model_type.replace('-', '_').replace('.', '_')}"
    found = {
        "pyproject.toml": _PYPROJECT.format(
            name=name, package=package, model_type=model_type, cls=class_name(model_type), core=_core_range()
        ),
        "README.md": _readme(inferred, name),
        f"src/{package}/__init__.py": descriptor_source(inferred),
        f"src/{package}/py.typed": "",
    }
    if not comes_as_code(inferred):  # a test has no checkpoint to take the code from
        found["tests/test_conformance.py"] = _TEST.format(model_type=model_type, levels=_tested(inferred))
    return found


def _tested(inferred: InferredFamily) -> str:
    """Return the argument that limits the test to the levels that were passed; none where all were, or nothing was."""
    passed = [level for level, reached in (inferred.levels or {}).items() if reached]
    return f", levels={passed}" if passed and len(passed) < len(inferred.levels or {}) else ""


def _core_range() -> str:
    major, minor = anyblock.__version__.split(".")[:2]
    return f"anyblock>={major}.{minor},<{int(major) + 1}"


def _readme(inferred: InferredFamily, name: str) -> str:
    lines = [
        f"# anyblock-{name}",
        "",
        f"An [AnyBlock](https://pypi.org/project/anyblock/) adapter for `{inferred.model_type}` models, written by",
    ]
    lines += [
        f"`anyblock new-family {inferred.model_type}` from what a tiny model with random weights showed.",
        "",
        "## What was found",
        "",
    ]
    lines += [f"- {place}: {seen}" for place, seen in inferred.evidence.items()]
    lines += ["", "## What is not supported", ""]
    lines += [f"- `{capability}`: {text}" for capability, text in inferred.attributes["not_implemented"].items()]
    if inferred.levels is None:
        lines += ["", "The conformance suite was not installed: all this rests on trials on the tiny model."]
    else:
        reached = ", ".join(level for level, passed in inferred.levels.items() if passed) or "none"
        lines += [
            "",
            f"Before this was written the conformance suite was run on it. Levels that are passed: {reached}.",
        ]
    lines += ["", "## Test it", "", "```console", "$ python -m pip install -e . 'anyblock-conformance[pytest]'"]
    lines += [f"$ {conformance_command(inferred)}", "```"]
    return "\n".join(lines) + "\n"


def conformance_command(inferred: InferredFamily, model: str = "CHECKPOINT") -> str:
    """Return the command that runs the suite on the adapter; where the classes come as code, on a checkpoint that has it."""
    target = f"{model} --trust-remote-code" if comes_as_code(inferred) else inferred.model_type
    return f"anyblock conformance {target}"


def _format(folder: Path) -> None:
    config = ["--isolated", "--line-length", "120", "--target-version", "py311"]
    for command in (["check", "--fix", "--select", "I", "--quiet"], ["format", "--quiet"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *config, str(folder)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise UsageError(
                f"ruff cannot format the code: {done.stderr.strip()[:300]}",
                expected="ruff in this environment",
                hint="python -m pip install ruff",
            )


_PYPROJECT = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "anyblock-{name}"
version = "0.1.0"
description = "AnyBlock adapter for {model_type} models"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["{core}"]

[project.optional-dependencies]
test = ["anyblock-conformance[pytest]>=0.2,<1"]

[project.entry-points."anyblock.families"]
{model_type} = "{package}:{cls}"

[tool.hatch.build.targets.wheel]
packages = ["src/{package}"]
"""
_TEST = """from anyblock_conformance.pytest import conformance_tests

test_conformance = conformance_tests("{model_type}"{levels})
"""
