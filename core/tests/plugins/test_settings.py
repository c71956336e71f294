"""Allow-list, deny-list, preferences and strict mode, from the environment and as arguments."""

from __future__ import annotations

import pytest
from anyblock.errors import PluginError, UnsupportedModelError, UsageError
from anyblock.family import get_family
from anyblock.plugins import PluginRegistry, PluginSettings, PluginStatus


@pytest.fixture
def three(site):
    """Three adapters named one, two and three, and an extension."""
    for name in ("one", "two", "three"):
        site.module(f"plugin_{name}")
        site.distribution(f"AnyBlock_{name.title()}", families={name: f"plugin_{name}:Descriptor"})
    site.distribution("anyblock-extra", extensions={"extra": "plugin_one:Descriptor"})
    return site


def ready(site, **environ):
    registry = site.registry(PluginSettings.from_env(environ))
    return [record.distribution for record in registry if record.status is PluginStatus.READY], registry


def test_everything_is_allowed_by_default(three):
    names, registry = ready(three)
    assert names == ["anyblock-extra", "AnyBlock_One", "AnyBlock_Three", "AnyBlock_Two"]
    assert registry.notices == ()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"ANYBLOCK_PLUGINS": ""}, []),
        ({"ANYBLOCK_PLUGINS": " ANYBLOCK.two , anyblock-extra,"}, ["anyblock-extra", "AnyBlock_Two"]),
        ({"ANYBLOCK_DISABLE_PLUGINS": ""}, ["anyblock-extra", "AnyBlock_One", "AnyBlock_Three", "AnyBlock_Two"]),
        ({"ANYBLOCK_DISABLE_PLUGINS": "anyblock_one"}, ["anyblock-extra", "AnyBlock_Three", "AnyBlock_Two"]),
        ({"ANYBLOCK_DISABLE_PLUGINS": "*"}, []),
        ({"ANYBLOCK_PLUGINS": "anyblock-one", "ANYBLOCK_DISABLE_PLUGINS": "anyblock-one"}, []),
    ],
)
def test_allow_and_deny_lists(three, environ, expected):
    names, registry = ready(three, **environ)
    assert names == expected
    for record in registry:
        assert record.status in (PluginStatus.READY, PluginStatus.BLOCKED)
        assert (record.status is PluginStatus.BLOCKED) == bool(record.reason)
    assert registry.notices == ()


def test_asking_for_a_blocked_adapter_says_who_blocked_it(three):
    _, registry = ready(three, ANYBLOCK_DISABLE_PLUGINS="anyblock-one")
    with pytest.raises(PluginError, match=r"AnyBlock_One 1\.0.*blocked.*ANYBLOCK_DISABLE_PLUGINS"):
        get_family("one", registry=registry)


def test_asking_for_an_adapter_that_a_misspelt_list_blocks_shows_the_misspelling(three):
    _, registry = ready(three, ANYBLOCK_PLUGINS="anyblock-ones")
    with pytest.raises(PluginError, match="did you mean 'anyblock-one'"):
        get_family("one", registry=registry)


@pytest.mark.parametrize(
    ("variable", "name", "hint"),
    [
        ("ANYBLOCK_PLUGINS", "anyblock-thre", "did you mean 'anyblock-three'?"),
        ("ANYBLOCK_DISABLE_PLUGINS", "two", "did you mean 'anyblock-two'?"),
        ("ANYBLOCK_DISABLE_PLUGINS", "unrelated-thing", "not installed"),
    ],
)
def test_an_unknown_name_in_a_list_is_reported(three, variable, name, hint):
    _, registry = ready(three, **{variable: name})
    (notice,) = registry.notices
    assert notice.startswith(f"{variable} names {name}, which is not installed")
    assert hint in notice


def test_a_model_type_in_a_list_suggests_its_distribution(site):
    site.distribution("acme-adapters", families={"rocket": "x:A"})
    _, registry = ready(site, ANYBLOCK_PLUGINS="rocket")
    assert "did you mean 'acme-adapters'?" in registry.notices[0]


def test_strict_mode_makes_any_fault_an_error(three):
    three.distribution("anyblock-bad", families={"bad": "x:A"}, requires=("anyblock>=9",))
    _, lenient = ready(three)
    assert get_family("one", registry=lenient).distribution == "AnyBlock_One"
    for value in ("1", "true", "yes", "on"):
        _, strict = ready(three, ANYBLOCK_STRICT_PLUGINS=value)
        with pytest.raises(PluginError, match=r"strict mode: anyblock-bad 1\.0 \(incompatible\)"):
            get_family("one", registry=strict)
    for value in ("", "0", "false", "No", " off "):
        assert not PluginSettings.from_env({"ANYBLOCK_STRICT_PLUGINS": value}).strict


def test_strict_mode_leaves_blocked_plugins_alone_but_not_unknown_names(three):
    three.distribution("anyblock-bad", families={"bad": "x:A"}, requires=("anyblock>=9",))
    _, strict = ready(three, ANYBLOCK_STRICT_PLUGINS="1", ANYBLOCK_DISABLE_PLUGINS="anyblock-bad,anyblock-extra")
    assert get_family("one", registry=strict).distribution == "AnyBlock_One"
    _, strict = ready(three, ANYBLOCK_STRICT_PLUGINS="1", ANYBLOCK_DISABLE_PLUGINS="anyblock-bad,anyblock-nix")
    with pytest.raises(PluginError, match="anyblock-nix, which is not installed"):
        get_family("one", registry=strict)


@pytest.fixture
def rivals(site):
    """Two distributions that claim `duck`, one of which serves `goose` alone."""
    for name in ("pond", "lake"):
        site.module(f"{name}_plugin")
    site.distribution("anyblock-pond", "1.0", families={"duck": "pond_plugin:Descriptor"})
    site.distribution(
        "anyblock-lake", "2.0", families={"duck": "lake_plugin:Descriptor", "goose": "lake_plugin:Descriptor"}
    )
    return site


def test_two_claims_on_a_model_type_are_a_conflict_that_names_both(rivals):
    registry = rivals.registry()
    assert [record.status for record in registry] == [PluginStatus.CONFLICTING] * 2
    lake, pond = registry.records
    assert "anyblock-pond 1.0" in lake.reason
    assert "anyblock-lake 2.0" in pond.reason
    with pytest.raises(PluginError) as caught:
        get_family("duck", registry=registry)
    for word in ("'duck'", "anyblock-lake 2.0", "anyblock-pond 1.0", "ANYBLOCK_PREFER=duck=anyblock-"):
        assert word in str(caught.value)
    # What is not contested keeps working.
    assert get_family("goose", registry=registry).version == "2.0"
    assert registry.model_types == ("goose",)


@pytest.mark.parametrize("choice", ["anyblock-pond", "Anyblock_Lake"])
def test_a_preference_decides_a_conflict(rivals, choice):
    by_env = rivals.registry(PluginSettings.from_env({"ANYBLOCK_PREFER": f" duck = {choice} ,"}))
    by_argument = rivals.registry(PluginSettings.from_env({"ANYBLOCK_PREFER": "duck=nobody"}), prefer={"duck": choice})
    for registry in (by_env, by_argument):
        chosen = get_family("duck", registry=registry)
        assert chosen.distribution == choice.lower().replace("_", "-")
        assert not any(record.faulty for record in registry)
        assert get_family("goose", registry=registry).distribution == "anyblock-lake"
        statuses = {record.distribution: record.status for record in registry}
        assert statuses["anyblock-lake"] is PluginStatus.READY
        expected = PluginStatus.BLOCKED if "lake" in choice.lower() else PluginStatus.READY
        assert statuses["anyblock-pond"] is expected
        assert registry.notices == ()


def test_blocking_or_incompatibility_also_ends_a_conflict(rivals):
    registry = rivals.registry(PluginSettings.from_env({"ANYBLOCK_DISABLE_PLUGINS": "anyblock-pond"}))
    assert get_family("duck", registry=registry).distribution == "anyblock-lake"


@pytest.mark.parametrize(
    ("value", "notice"),
    [
        ("duck", "ANYBLOCK_PREFER has 'duck'; expected model_type=distribution"),
        ("=anyblock-pond", "expected model_type=distribution"),
        ("duck=anyblock-ponds", "did you mean 'anyblock-pond'?"),
        ("swan=anyblock-pond", "prefers anyblock-pond for swan, which it does not serve here"),
        ("duk=anyblock-pond", "which it does not serve here; did you mean 'duck'?"),
    ],
)
def test_a_preference_that_decides_nothing_is_reported_and_refused(rivals, value, notice):
    registry = rivals.registry(PluginSettings.from_env({"ANYBLOCK_PREFER": value}))
    assert notice in registry.notices[0]
    assert [record.status for record in registry] == [PluginStatus.CONFLICTING] * 2
    with pytest.raises(UsageError) as caught:
        get_family("goose", registry=registry)
    assert notice in str(caught.value)


def test_a_registry_can_be_made_of_plugins_at_hand(site):
    site.module("good_plugin")
    from good_plugin import Descriptor

    registry = PluginRegistry.from_plugins({"one": Descriptor, "two": Descriptor()})
    assert registry.model_types == ("one", "two")
    assert get_family("two", registry=registry).final_norm_name() == "model.norm"
    with pytest.raises(UnsupportedModelError, match="'llama'"):
        get_family("llama", registry=registry)
