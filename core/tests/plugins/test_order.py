"""The result does not depend on the order in which distributions are found."""

from __future__ import annotations

import importlib.metadata

import pytest
from anyblock.contract.hookspecs import hookimpl
from anyblock.errors import AnyBlockError
from anyblock.family import ModelFamily, get_family
from anyblock.plugins import PluginRegistry, PluginSettings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NAMES = [f"anyblock-p{index}" for index in range(7)]


@pytest.fixture
def crowd(site) -> list[importlib.metadata.Distribution]:
    """Seven distributions: rivals, one incompatible, one malformed, one doubled, extensions."""
    site.module("good_plugin")
    serve = "good_plugin:Descriptor"
    site.distribution(NAMES[0], families={"a": serve, "b": serve})
    site.distribution(NAMES[1], families={"b": serve, "c": serve})
    site.distribution(NAMES[2], families={"c": serve}, requires=("anyblock>=5",))
    site.distribution(NAMES[3], families={"a": "not a value"})
    site.distribution(NAMES[4], "1.0", families={"d": serve})
    site.distribution(NAMES[4], "1.1", families={"d": serve})
    site.distribution(NAMES[5], extensions={"y": serve, "x": serve})
    site.distribution(NAMES[6], extensions={"x": serve})
    return site.found()


@settings(derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_shuffling_the_distributions_changes_nothing(crowd, data):
    chosen = PluginSettings(
        allow=data.draw(st.none() | st.frozensets(st.sampled_from(NAMES))),
        deny=data.draw(st.frozensets(st.sampled_from(NAMES), max_size=2)),
        prefer=data.draw(st.dictionaries(st.sampled_from("abc"), st.sampled_from(NAMES), max_size=2)),
    )
    shuffled = data.draw(st.permutations(crowd))
    straight = PluginRegistry.discover(chosen, found=crowd, core_version="0.1.0")
    other = PluginRegistry.discover(chosen, found=shuffled, core_version="0.1.0")
    assert [record.to_dict() for record in straight] == [record.to_dict() for record in other]
    assert straight.notices == other.notices
    assert straight.model_types == other.model_types
    assert [outcome(straight, name) for name in "abcd"] == [outcome(other, name) for name in "abcd"]
    keys = [(record.group, record.distribution) for record in straight]
    assert keys == sorted(keys)


def outcome(registry: PluginRegistry, model_type: str) -> str:
    try:
        return repr(registry.provider(model_type))
    except AnyBlockError as error:
        return str(error)


class _Base:
    @hookimpl
    def create_block_configs(self, config):
        return []


class _Wrapper:
    def __init__(self, name: str) -> None:
        self.name = name

    @hookimpl(wrapper=True)
    def final_norm_name(self):
        found = yield
        return f"{found}.{self.name}"


class _Named(_Base):
    @hookimpl
    def final_norm_name(self):
        return "norm"


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.permutations(["a", "b", "c", "d"]))
def test_wrappers_are_called_in_the_order_of_their_distributions(names):
    registry = PluginRegistry.from_plugins({"m": _Named}, {name: _Wrapper(name) for name in names})
    assert get_family("m", registry=registry).final_norm_name() == "norm.d.c.b.a"


def test_the_descriptor_answers_before_an_extension_that_does_not_wrap():
    class Also:
        @hookimpl
        def final_norm_name(self):
            return "other"

        @hookimpl
        def input_embedding_name(self):
            return "wte"

    family = ModelFamily.from_descriptor(_Named, model_type="m", extensions=[Also])
    assert family.final_norm_name() == "norm"
    assert family.input_embedding_name() == "wte"
