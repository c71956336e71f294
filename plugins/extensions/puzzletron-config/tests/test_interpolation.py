"""Interpolation: other keys only, no environment, no circles, no explosion, and nothing left behind in OmegaConf."""

from __future__ import annotations

import threading
import time

import pytest
from anyblock.contract.config_tree import Tree
from anyblock.errors import ConfigError
from anyblock_puzzletron_config.interpolation import resolve
from omegaconf import OmegaConf
from omegaconf.basecontainer import BaseContainer


def test_keys_stand_for_values() -> None:
    data = {"a": 3, "b": "${a}", "c": "x-${a}-${d.e}", "d": {"e": "y", "f": ["${a}", "${ d.e }"]}, "g": "${d.f[0]}"}
    assert resolve(Tree(data)) == {"a": 3, "b": 3, "c": "x-3-y", "d": {"e": "y", "f": [3, "y"]}, "g": 3}
    assert resolve(Tree({"a": {"x": [1]}, "b": "${a}"}))["b"] == {"x": [1]}


def test_one_value_is_resolved_by_itself() -> None:
    data = {"a": "${b}/x", "b": "y", "broken": "${nothing}", "missing": "???"}
    assert resolve(Tree(data), ("a",)) == "y/x"


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:HOME}",
        "${ oc.env : HOME }",
        "${oc.env:HOME,nothing}",
        "x${oc.env:HOME}y",
        "${oc.decode:'${oc.env:HOME}'}",
        "${oc.create:{a: 1}}",
        "${oc.select:model}",
        "${oc.dict.keys:data}",
        "${oc.coerce:3,int}",
        "${to_path:/etc}",
        "${get_object:os.system}",
        "${system:rm}",
        "${eval:1}",
        r"\${oc.env:HOME}",
    ],
)
def test_resolvers_are_not_allowed(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "secret-home")
    with pytest.raises(ConfigError, match=r"run.yaml:3: a: the resolver \$\{.*\} is not allowed") as caught:
        resolve(Tree({"a": text, "model": "m", "data": {}}, {("a",): "run.yaml:3"}))
    assert "secret-home" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["${${name}:HOME}", "${oc.${name}:HOME}", "${a.${name}}", "${", "${}", "${a b}", "${.b}", "${..b}", "${a", "$${a"],
)
def test_other_forms_are_not_read(text: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the interpolation"):
        resolve(Tree({"c": text, "name": "oc.env", "a": {"x": 1}, "b": 1}))


@pytest.mark.parametrize(
    "data",
    [
        {"a": "${a}"},
        {"a": "${b}", "b": "${a}"},
        {"a": "x${b}", "b": "${c.d}", "c": {"d": "${a}"}},
        {"a": {"b": "${a}"}},
    ],
)
def test_a_circle_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="form a circle: a"):
        resolve(Tree(data))


def test_an_unknown_key_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"a refers to 'data.pth', and there is no 'data.pth'") as caught:
        resolve(Tree({"a": "${data.pth}", "data": {"path": "x"}}))
    assert "'path'" in caught.value.hint
    with pytest.raises(ConfigError, match=r"data.path is text"):
        resolve(Tree({"a": "${data.path.x}", "data": {"path": "${b}"}, "b": {"x": 1}}))
    with pytest.raises(ConfigError, match="there is no"):
        resolve(Tree({"a": "${b[3]}", "b": [1]}))


def test_a_missing_value_is_named() -> None:
    with pytest.raises(ConfigError, match=r"run.yaml:2: data.path is \?\?\?"):
        resolve(Tree({"data": {"path": "???"}}, {("data", "path"): "run.yaml:2"}))


@pytest.mark.parametrize("shape", ["{0}{0}", "list", "dict"])
def test_interpolations_cannot_explode(shape: str) -> None:
    def value(name: str) -> object:
        reference = f"${{{name}}}"
        return {"list": [reference] * 2, "dict": {"x": reference, "y": reference}}.get(shape, shape.format(reference))

    data: dict[str, object] = {"a0": "laugh"} | {f"a{level}": value(f"a{level - 1}") for level in range(1, 60)}
    started = time.process_time()
    with pytest.raises(ConfigError, match=r"expand to too much text"):
        resolve(Tree(data))
    assert time.process_time() - started < 5


def test_resolvers_are_there_only_for_the_load() -> None:
    before = dict(BaseContainer._resolvers)
    data = {"a": "${get_object:x.y}", "b": "${get_object:${c}}", "c": "z"}
    resolvers = {"get_object": lambda name: f"<{name}>"}
    assert resolve(Tree(data), resolvers=resolvers) == {"a": "<x.y>", "b": "<z>", "c": "z"}
    assert not OmegaConf.has_resolver("get_object")

    def failing(name: str) -> str:
        raise ConfigError(f"{name} is unknown")

    with pytest.raises(ConfigError, match=r"x\.y is unknown"):
        resolve(Tree(data), resolvers={"get_object": failing})
    assert dict(BaseContainer._resolvers) == before


def test_the_callers_own_resolver_survives() -> None:
    OmegaConf.register_resolver("get_object", lambda name: "own")
    try:
        assert resolve(Tree({"a": "${get_object:x}"}), resolvers={"get_object": lambda name: "ours"}) == {"a": "ours"}
        assert OmegaConf.create({"a": "${get_object:x}"}).a == "own"
    finally:
        OmegaConf.clear_resolver("get_object")


def test_threads_do_not_disturb_each_other() -> None:
    found: dict[int, list[object]] = {}

    def work(number: int) -> None:
        tree = Tree({"a": "${get_object:x}"})
        resolvers = {"get_object": lambda name: number}
        found[number] = [resolve(tree, resolvers=resolvers)["a"] for _ in range(30)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [number] * 30 for number in range(6)}
    assert not OmegaConf.has_resolver("get_object")
