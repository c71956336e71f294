"""Overrides from the command line."""

from __future__ import annotations

import json

import pytest
from anyblock.config import load_config
from anyblock.config.overrides import apply_override
from anyblock.contract.config_tree import Tree, dotted
from anyblock.errors import ConfigError, UsageError
from hypothesis import given, settings
from hypothesis import strategies as st

BASE = {"model": "m", "output": "o"}


def applied(data: dict[str, object], *overrides: str) -> dict[str, object]:
    tree = Tree(json.loads(json.dumps(data)))
    for override in overrides:
        apply_override(tree, override)
    return tree.data


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("a=3", 3),
        ("a=1e-6", 1e-6),
        ("a=true", True),
        ("a=null", None),
        ("a=", None),
        ("a=0.8x", "0.8x"),
        ("a='3'", "3"),
        ("a=[0.25, 0.5]", [0.25, 0.5]),
        ("a=[0.25,'0.5x',64]", [0.25, "0.5x", 64]),
        ("a={x: 1, y: [2]}", {"x": 1, "y": [2]}),
        ("a=/some/place with blanks/é.txt", "/some/place with blanks/é.txt"),
        ("a=x=y", "x=y"),
        ("a=<=3", "<=3"),
        ("a=${b}", "${b}"),
        ("+a=3", 3),
        ("++a=3", 3),
    ],
)
def test_a_value_is_yaml(override: str, value: object) -> None:
    assert applied({"a": "old"}, override) == {"a": value}
    assert applied({}, override) == {"a": value}


def test_keys_on_the_way_are_made() -> None:
    assert applied({}, "a.b.c=1", "a.b.d=2") == {"a": {"b": {"c": 1, "d": 2}}}
    assert applied({"a": None}, "a.b=1") == {"a": {"b": 1}}


def test_a_mapping_is_merged_and_a_list_replaced() -> None:
    assert applied({"a": {"x": 1, "y": [1, 2]}}, "a={z: 3}") == {"a": {"x": 1, "y": [1, 2], "z": 3}}
    assert applied({"a": {"y": [1, 2]}}, "a.y=[3]") == {"a": {"y": [3]}}
    assert applied({"a": [1, 2, {"b": 3}]}, "a[1]=5", "a[2].b=6") == {"a": [1, 5, {"b": 6}]}


def test_later_overrides_win() -> None:
    assert applied({}, "a=1", "a=2") == {"a": 2}


def test_a_key_is_deleted() -> None:
    assert applied({"a": {"b": 1, "c": 2}}, "~a.b") == {"a": {"c": 2}}
    assert load_config(None, ["seed=5", "~seed"], BASE).seed == 0


@pytest.mark.parametrize(
    "override", ["", "a", "=3", "a.=3", ".a=3", "a..b=3", "a b=3", "~a=3", "~", "a[x]=3", "--a=3", "1a=3", "a/b=3"]
)
def test_another_form_is_a_usage_error(override: str) -> None:
    with pytest.raises(UsageError, match="override"):
        applied({"a": {"b": 1}}, override)


def test_a_key_that_is_not_there_cannot_be_deleted() -> None:
    with pytest.raises(UsageError, match=r"override '~a.path': a.path is not set") as caught:
        applied({"a": {"paths": 1}}, "~a.path")
    assert "'paths'" in caught.value.hint
    with pytest.raises(UsageError, match="not set"):
        applied({"a": 1}, "~a.b.c")


@pytest.mark.parametrize("override", ["a.b.c=1", "l.x=1", "l[2]=1", "n[0]=1", "a[0]=1"])
def test_a_key_below_something_without_keys_is_refused(override: str) -> None:
    data = {"a": {"b": 1}, "l": [1, 2], "n": 3}
    with pytest.raises(ConfigError, match="override"):
        applied(data, override)


@pytest.mark.parametrize("override", ["a=[1, 2", "a={x: 1, x: 2}", "a=!!python/name:os.system", f"a={'[' * 5000}"])
def test_the_value_is_read_as_carefully_as_a_file(override: str) -> None:
    with pytest.raises(ConfigError, match="override"):
        applied({}, override)


def test_an_error_names_the_override() -> None:
    with pytest.raises(ConfigError, match=r"override 'data.blok_size=3': data.blok_size: unknown key.*'block_size'"):
        load_config(None, ["data.blok_size=3"], BASE)
    with pytest.raises(ConfigError, match=r"override 'data=\{block_size: x\}': data.block_size: input should be"):
        load_config(None, ["data={block_size: x}"], BASE)


NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,8}", fullmatch=True)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="$")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(NAMES, min_size=1, max_size=4), VALUES)
def test_what_an_override_sets_is_what_is_there(path: list[str], value: object) -> None:
    found: object = applied({}, f"{dotted(tuple(path))}={json.dumps(value, ensure_ascii=False)}")
    for part in path:
        assert isinstance(found, dict)
        assert list(found) == [part]
        found = found[part]
    assert found == value
    assert type(found) is type(value)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    st.lists(st.integers(1, 9999) | st.floats(0.01, 0.99), max_size=4),
    st.integers(0, 2**40),
    st.sampled_from(["kl", "cosine", "lm_loss", "mse"]),
    st.floats(1e-3, 1.5),
)
def test_overrides_reach_the_config(sizes: list[float], seed: int, metric: str, share: float) -> None:
    overrides = [
        f"pruning.ffn.sizes={sizes}",
        f"seed={seed}",
        f"scoring.metric={metric}",
        f"search.budget.params={share}x",
    ]
    config = load_config(None, overrides, BASE)
    assert list(config.pruning.ffn.sizes) == sizes
    assert (config.seed, config.scoring.metric) == (seed, metric)
    (bound,) = config.search.bounds()
    assert bound.upper is not None
    assert bound.upper.resolve(1.0) == share
    again = load_config(None, [f"{key}={json.dumps(value)}" for key, value in config.to_dict().items()])
    assert again == config
