"""Extensions: what they add and wrap, whom they concern, clashes that name both sides, and broken ones left out."""

from __future__ import annotations

import warnings

import pytest
from anyblock.contract.hookspecs import hookimpl
from anyblock.errors import PluginError
from anyblock.family import ModelFamily, get_family
from anyblock.importance import HOOKS, ImportanceHook
from anyblock.plugins import PluginRegistry, PluginWarning


class Norms:
    """A descriptor with one structural hook and no contribution to the collecting ones."""

    @hookimpl
    def final_norm_name(self):
        return "model.norm"


class OneHook(ImportanceHook):
    pass


class OtherHook(ImportanceHook):
    pass


def contributing(**hooks: type[ImportanceHook]) -> type:
    return type("Contributing", (), {"importance_hooks": hookimpl(lambda self: hooks)})


def added(registry_or_family: PluginRegistry | ModelFamily) -> dict[str, type[ImportanceHook]]:
    """Return the importance hooks that are not core's own."""
    family = registry_or_family
    if isinstance(family, PluginRegistry):
        family = get_family("m", registry=family)
    return {name: hook for name, hook in family.importance_hooks().items() if name not in HOOKS}


def test_contributions_of_the_family_and_of_extensions_are_merged_and_sorted():
    class Family(Norms):
        @hookimpl
        def importance_hooks(self):
            return {"Z": OneHook}

    registry = PluginRegistry.from_plugins(
        {"m": Family}, {"b": contributing(Y=OtherHook), "a": contributing(A=OneHook, X=OneHook)}
    )
    family = get_family("m", registry=registry)
    assert added(family) == {"A": OneHook, "X": OneHook, "Y": OtherHook, "Z": OneHook}
    names = list(family.importance_hooks())
    assert names == sorted(names)
    assert set(HOOKS) < set(names)
    assert family.extensions == ("a (given)", "b (given)")


def test_a_clash_between_extensions_names_both_and_how_to_end_it():
    registry = PluginRegistry.from_plugins(
        {"m": Norms}, {"b": contributing(New=OneHook), "a": contributing(New=OtherHook)}
    )
    with pytest.raises(PluginError) as caught:
        added(registry)
    message = str(caught.value)
    assert "importance_hooks: 'New' comes from a (given) and from b (given)" in message
    assert "ANYBLOCK_DISABLE_PLUGINS=a or ANYBLOCK_DISABLE_PLUGINS=b" in message


def test_a_clash_with_the_family_or_with_core_names_both():
    class Family(Norms):
        @hookimpl
        def importance_hooks(self):
            return {"New": OneHook}

    with pytest.raises(PluginError, match=r"'New' comes from a \(given\) and from m \(given\)"):
        added(PluginRegistry.from_plugins({"m": Family}, {"a": contributing(New=OtherHook)}))
    builtin = next(iter(HOOKS))
    with pytest.raises(PluginError, match=rf"{builtin!r} comes from a \(given\) and from anyblock \d"):
        added(PluginRegistry.from_plugins({"m": Norms}, {"a": contributing(**{builtin: OneHook})}))


def test_giving_the_same_object_twice_is_no_clash():
    registry = PluginRegistry.from_plugins(
        {"m": Norms}, {"a": contributing(New=OneHook), "b": contributing(New=OneHook)}
    )
    assert added(registry) == {"New": OneHook}
    builtin, cls = next(iter(HOOKS.items()))
    assert get_family(
        "m", registry=PluginRegistry.from_plugins({"m": Norms}, {"a": contributing(**{builtin: cls})})
    ).importance_hooks() == dict(sorted(HOOKS.items()))


def test_a_wrapper_may_replace_what_another_plugin_contributes():
    class Replacing:
        @hookimpl(wrapper=True)
        def importance_hooks(self):
            results = yield
            return [{name: OtherHook if name == "New" else hook for name, hook in found.items()} for found in results]

    registry = PluginRegistry.from_plugins({"m": Norms}, {"a": contributing(New=OneHook), "z": Replacing})
    assert added(registry) == {"New": OtherHook}


def test_a_structural_hook_can_be_wrapped():
    class Prefixed:
        @hookimpl(wrapper=True)
        def final_norm_name(self):
            return f"language_model.{(yield)}"

    family = ModelFamily.from_descriptor(Norms, model_type="m", extensions=[Prefixed])
    assert family.final_norm_name() == "language_model.model.norm"
    assert not ModelFamily.from_descriptor(contributing(), model_type="m", extensions=[Prefixed]).implements(
        "final_norm_name"
    )


def test_an_extension_may_concern_some_families_only():
    class ForOne:
        model_types = ("one",)

        @hookimpl(wrapper=True)
        def final_norm_name(self):
            return f"wrapped.{(yield)}"

    registry = PluginRegistry.from_plugins({"one": Norms, "two": Norms}, {"x": ForOne})
    assert get_family("one", registry=registry).final_norm_name() == "wrapped.model.norm"
    assert get_family("two", registry=registry).final_norm_name() == "model.norm"
    direct = ModelFamily.from_descriptor(Norms, model_type="two", extensions=[ForOne])
    assert direct.extensions == ()


class Raising:
    @hookimpl
    def importance_hooks(self):
        raise LookupError("no table")


class Wrong:
    @hookimpl
    def importance_hooks(self):
        return {"Wrong": "a string"}


@pytest.mark.parametrize(("broken", "words"), [(Raising, "LookupError: no table"), (Wrong, "returned 'a string'")])
def test_an_extension_that_breaks_while_it_contributes_is_left_out(broken, words):
    plugins = {"m": Norms}, {"a": broken, "b": contributing(New=OneHook)}
    family = get_family("m", registry=PluginRegistry.from_plugins(*plugins))
    with pytest.warns(PluginWarning, match=rf"extension a \(given\) is left out.*{words}"):
        assert added(family) == {"New": OneHook}
    # It is out for good, with everything it registered.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert added(family) == {"New": OneHook}
    assert family.extensions == ("b (given)",)
    with pytest.raises(PluginError, match=words):
        added(PluginRegistry.from_plugins(*plugins, strict=True))


@pytest.mark.parametrize("broken", [Raising, Wrong])
def test_a_family_that_breaks_while_it_contributes_is_an_error(broken):
    with pytest.raises(PluginError, match=r"plugin m \(given\): hook importance_hooks"):
        added(PluginRegistry.from_plugins({"m": broken}, {"a": contributing(New=OneHook)}))


def test_an_extension_that_also_changes_the_structure_is_not_dropped_half_way():
    class Both(Raising):
        @hookimpl(wrapper=True)
        def final_norm_name(self):
            return f"x.{(yield)}"

    family = get_family("m", registry=PluginRegistry.from_plugins({"m": Norms}, {"a": Both}))
    with pytest.raises(PluginError, match=r"plugin a \(given\): hook importance_hooks"):
        added(family)
    assert family.final_norm_name() == "x.model.norm"


def test_a_wrapper_that_spoils_the_results_is_the_one_to_blame():
    class Spoiling:
        @hookimpl(wrapper=True)
        def importance_hooks(self):
            yield
            return {"not": "a list"}

    family = get_family(
        "m", registry=PluginRegistry.from_plugins({"m": Norms}, {"a": contributing(A=OneHook), "s": Spoiling})
    )
    with pytest.warns(PluginWarning, match=r"extension s \(given\).*was wrapped into a dict"):
        assert added(family) == {"A": OneHook}


def test_an_extension_is_imported_for_every_family_and_warned_about_once(site):
    site.module("good_plugin")
    site.distribution("anyblock-good", families={"one": "good_plugin:Descriptor", "two": "good_plugin:Descriptor"})
    site.module("bad_extension", "raise OSError('gone')\n")
    site.distribution("anyblock-bad", extensions={"bad": "bad_extension:X"})
    registry = site.registry()
    with pytest.warns(PluginWarning, match="gone"):
        get_family("one", registry=registry)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        get_family("two", registry=registry)


def test_two_extensions_may_share_a_name_and_a_distribution_may_have_both_kinds(site):
    source = (
        "from anyblock.contract.hookspecs import hookimpl\n"
        "class Extension:\n"
        "    @hookimpl(wrapper=True)\n"
        "    def final_norm_name(self):\n"
        "        return 'NAME.' + (yield)\n"
    )
    site.module("good_plugin")
    for name in ("x", "y"):
        site.module(f"extension_{name}", source.replace("NAME", name))
        site.distribution(f"anyblock-{name}", extensions={"same": f"extension_{name}:Extension"})
    site.distribution(
        "anyblock-both", families={"m": "good_plugin:Descriptor"}, extensions={"same": "extension_x:Extension"}
    )
    family = get_family("m", registry=site.registry())
    assert family.final_norm_name() == "x.x.y.model.norm"
    assert family.extensions == ("anyblock-both 1.0", "anyblock-x 1.0", "anyblock-y 1.0")
