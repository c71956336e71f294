"""Whatever a file holds, it is loaded or refused with a message; nothing else escapes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from anyblock.config import load_config
from anyblock.config.registry import NameRegistry
from anyblock.config.schema import RunConfig
from anyblock.contract.config_tree import Tree, split_key
from anyblock.errors import ConfigError
from anyblock_puzzletron_config.keys import GUIDE_KEYS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

OWN_KEYS = [
    *RunConfig.model_fields,
    "data.block_size",
    "pruning.ffn",
    "pruning.ffn.sizes",
    "pruning.ffn.hook",
    "pruning.ffn.extra_hooks",
    "pruning.kv_heads.heads_per_group",
    "pruning.thing",
    "search.budget",
    "search.budget.params",
    "search.length",
    "defaults",
]
TEXTS = [
    "",
    "0.5x",
    "params=0.8x",
    "iterative",
    "llama",
    "os.system",
    "FFNIntermediatePruningMixIn",
    "???",
    "${seed}",
    "${data}",
    "${pruning.block_size}",
    "${get_object:L2NormHook}",
    "${get_object:os.system}",
    "${oc.env:HOME}",
    "${",
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9999) | st.floats(allow_nan=False) | st.sampled_from(TEXTS),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["params", "a", "enabled"]), inner),
    max_leaves=4,
)
KEYS = st.sampled_from([*GUIDE_KEYS, *{key.partition(".")[0] for key in GUIDE_KEYS}, *OWN_KEYS])


def loaded_or_refused(path: Path, registry: NameRegistry, *overrides: str) -> RunConfig | str:
    """Return the configuration, or the message."""
    try:
        return load_config(path, overrides, registry=registry)
    except ConfigError as error:
        return str(error)


@settings(
    deadline=None, derandomize=True, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_any_file_is_loaded_or_refused(tmp_path: Path, registry: NameRegistry, values: dict[str, object]) -> None:
    tree = Tree()
    for key, value in values.items():
        below: object = value
        for part in reversed(split_key(key)):
            below = {part: below}
        tree.merge(Tree(json.loads(json.dumps(below))))
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps({"model": "m", "output": "o", **tree.data}), encoding="utf-8")
    outcome = loaded_or_refused(path, registry)
    if isinstance(outcome, RunConfig):
        assert RunConfig.model_validate(json.loads(json.dumps(outcome.to_dict()))) == outcome


@pytest.mark.parametrize("value", [[1], {"a": 1}, {"enabled": [1]}, 3, "x", True, "???", "${seed}"], ids=str)
def test_any_key_with_any_value_is_loaded_or_refused(write, registry: NameRegistry, value: object) -> None:
    path = write("model: m\noutput: o\nseed: 1\n")
    messages = {}
    for key in [*GUIDE_KEYS, *{key.partition(".")[0] for key in GUIDE_KEYS}, *OWN_KEYS]:
        outcome = loaded_or_refused(path, registry, f"{key}={json.dumps(value)}")
        if isinstance(outcome, str):
            messages[key] = outcome
    assert len(messages) > 10
    assert [key for key, message in messages.items() if key.partition(".")[0] not in message] == []


@pytest.mark.parametrize("text", ["\ufeff", "%YAML 1.1\n---\nmodel: a\noutput: b\n", "model: a\noutput: b\n...\n"])
def test_unusual_yaml_is_loaded_or_refused(write, registry: NameRegistry, text: str) -> None:
    outcome = loaded_or_refused(write(text), registry)
    assert outcome if isinstance(outcome, str) else outcome.model == "a"
