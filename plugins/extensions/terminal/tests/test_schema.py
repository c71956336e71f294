"""The JSON Schema of the YAML: every YAML that this repository shows is valid, and a misspelled key is not."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from anyblock.cli import app
from anyblock.config import RunConfig
from anyblock.contract.services import services
from anyblock_terminal.schema import json_schema, schema_text
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

ROOT = Path(__file__).parents[4]
_BLOCK = re.compile(r"^( *)```yaml\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
OURS = {*RunConfig.model_fields}


def shown() -> list[Any]:
    """Return every YAML block of a page that is a part of a run, and every file."""
    found = []
    for page in sorted(ROOT.rglob("*.md")):
        if {".nox", "build", "node_modules", "site-packages", ".git"} & {*page.relative_to(ROOT).parts}:
            continue
        for number, (_, text) in enumerate(_BLOCK.findall(page.read_text(encoding="utf-8"))):
            data = yaml.safe_load(textwrap.dedent(text))
            if isinstance(data, dict) and {*data} & OURS:
                found.append(pytest.param(data, id=f"{page.relative_to(ROOT)}-{number}"))
    return found


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json_schema(services().run_settings("llama"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("data", shown())
def test_every_yaml_that_is_shown_is_valid(validator: Draft202012Validator, data: Any) -> None:
    assert [error.message for error in validator.iter_errors(data)] == []


def test_there_are_yamls_to_check() -> None:
    assert len(shown()) >= 8


def without(data: Any, key: str) -> Any:
    return {("x" + name if name == key else name): value for name, value in data.items()}


@pytest.mark.parametrize("data", shown())
def test_a_misspelled_key_is_refused(validator: Draft202012Validator, data: Any) -> None:
    for key, value in data.items():
        assert list(validator.iter_errors(without(data, key))), key
        for below in value if isinstance(value, dict) else ():
            changed = {**data, key: without(value, below)}
            assert list(validator.iter_errors(changed)), f"{key}.{below}"


def test_what_the_model_takes_the_schema_takes(validator: Draft202012Validator) -> None:
    everything = RunConfig(model="m", output="o").to_dict()
    for data in (
        everything,
        {"search": {"budget": ["params=0.8x", "kv_heads>=4"]}},
        {"search": {"budget": {"params": 1e9, "memory": "1GiB"}, "batch": "${data.batch_size}"}},
        {"data": {"path": ["a.txt", {"path": "b.txt", "weight": 2}]}},
        {"pruning": {"ffn_blocks": {"sizes": [0.5]}}},  # of the example extension
    ):
        assert [error.message for error in validator.iter_errors(data)] == [], data


@pytest.mark.parametrize(
    "data",
    [
        {"serach": {}},
        {"search": {"bugdet": {}}},
        {"search": {"batch": "many"}},
        {"search": {"batch": 0}},
        {"scoring": {"method": "guessed"}},
        {"data": {"path": {"a": 1}}},
        {"evaluation": {"enabled": "yes"}},
    ],
    ids=str,
)
def test_what_the_model_refuses_the_schema_refuses(validator: Draft202012Validator, data: Any) -> None:
    assert list(validator.iter_errors(data))


def test_the_command_prints_it() -> None:
    done = CliRunner().invoke(app, ["schema", "--family", "llama"])
    assert json.loads(done.stdout) == json_schema(services().run_settings("llama"))


def test_the_published_schema_is_current() -> None:
    """Run `python core/scripts/write_run_schema.py` after changing a setting of core."""
    assert (ROOT / "core" / "docs" / "run.schema.json").read_text(encoding="utf-8") == schema_text(RunConfig)
