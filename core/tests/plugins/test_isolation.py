"""Whatever a plugin does wrong stays its own fault: the zoo of bad plugins, each beside a good one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from anyblock.errors import PluginError
from anyblock.family import get_family
from anyblock.plugins import PluginLoadError, PluginStatus

# What the message must say, by fault; a second entry is the file and line that the record must point at.
FAULTS: dict[str, tuple[tuple[str, ...], str]] = {
    "raises_at_import": (("RuntimeError", "another platform"), "raises_at_import.py:1"),
    "exits_at_import": (("SystemExit", "thinks it is a script"), "exits_at_import.py:3"),
    "raises_a_base_exception_at_import": (("Outcome", "not even an Exception"), ".py:5"),
    "raises_a_kind_of_interrupt_at_import": (("Interrupt", "pretends"), ".py:5"),
    "imports_a_missing_module": (("ModuleNotFoundError", "a_module_that_nobody_has"), ".py:1"),
    "lacks_the_registered_name": (("AttributeError", "Descriptor"), ""),
    "constructor_raises": (("Descriptor()", "KeyError", "rope"), "constructor_raises.py:8"),
    "constructor_needs_arguments": (("Descriptor()", "TypeError", "config"), ""),
    "misspells_a_hook": (("'create_block_config'", "is not a hook", "did you mean 'create_block_configs'"), ".py:8"),
    "misspells_a_specname": (("'final_norm_nam'", "did you mean 'final_norm_name'"), ".py:8"),
    "asks_for_an_unknown_argument": (
        ("create_block_configs", "'confg'", "create_block_configs(config)", "did you mean 'config'"),
        ".py:8",
    ),
    "gives_an_argument_a_default": (("layer_block_name", "'index'", "default"), ".py:8"),
    "has_a_keyword_only_argument": (("layer_block_name", "keyword-only", "'index'"), ".py:8"),
    "override_lost_its_marker": (("'final_norm_name'", "not its marker", "@hookimpl"), ".py:7"),
    "mixin_lost_the_marker": (("'final_norm_name'", "not its marker"), ".py:5"),
    "hook_became_an_attribute": (("'final_norm_name'", "not its marker"), ""),
    "marks_a_property": (("'final_norm_name'", "a property and not a method"), ".py:8"),
    "marks_a_callable_object": (("'final_norm_name'", "a Name and not a method"), ""),
    "wrapper_does_not_yield": (("'final_norm_name'", "does not yield"), ".py:8"),
    "yields_without_being_a_wrapper": (("'final_norm_name'", "not marked as a wrapper"), ".py:8"),
    "is_a_coroutine": (("'final_norm_name'", "coroutine"), ".py:8"),
    "implements_nothing": (("no hook", "hookimpl"), ""),
    "names_one_model_type_as_a_string": (("model_types is 'llama'", "a tuple"), ""),
}


def test_every_animal_of_the_zoo_is_tested(zoo):
    assert sorted(path.stem for path in zoo.glob("*.py")) == sorted(FAULTS)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_adapter_is_reported_and_the_others_keep_working(fault, site, zoo):
    words, place = FAULTS[fault]
    site.module(fault, (zoo / f"{fault}.py").read_text(encoding="utf-8"))
    site.distribution("anyblock-bad", "3.1", families={"bad": f"{fault}:Descriptor"})
    site.module("good_plugin")
    site.distribution("anyblock-good", families={"good": "good_plugin:Descriptor"})
    registry = site.registry()
    assert {record.status for record in registry} == {PluginStatus.READY}

    with pytest.raises(PluginLoadError) as caught:
        get_family("bad", registry=registry)
    message = str(caught.value)
    for word in ("anyblock-bad", "3.1", *words):
        assert word in message, message
    assert get_family("good", registry=registry).final_norm_name() == "model.norm"

    bad, good = registry.records
    assert (bad.status, good.status) == (PluginStatus.FAILED, PluginStatus.READY)
    assert bad.location.endswith(place)
    if place:
        assert Path(bad.location.rpartition(":")[0]).name == f"{fault}.py"
        assert bad.location in bad.reason
    # Asking again gives the same answer, and does not run the plugin's code again.
    with pytest.raises(PluginLoadError) as again:
        get_family("bad", registry=registry)
    assert str(again.value) == message


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_extension_is_left_out_with_a_warning_or_an_error_in_strict_mode(fault, site, zoo):
    site.module(fault, (zoo / f"{fault}.py").read_text(encoding="utf-8"))
    site.distribution("anyblock-bad", "3.1", extensions={"bad": f"{fault}:Descriptor"})
    site.module("good_plugin")
    site.distribution("anyblock-good", families={"good": "good_plugin:Descriptor"})
    registry = site.registry()
    with pytest.warns(UserWarning, match=r"extension anyblock-bad 3\.1 is left out") as caught:
        family = get_family("good", registry=registry)
    assert len(caught) == 1
    assert family.extensions == ()
    assert family.final_norm_name() == "model.norm"
    with pytest.raises(PluginError, match=r"anyblock-bad 3\.1"):
        get_family("good", registry=site.registry(strict=True))


def test_a_syntax_error_is_placed_in_the_plugin(site):
    site.module("half_saved", "def broken(:\n")
    site.distribution("anyblock-bad", families={"bad": "half_saved:Descriptor"})
    registry = site.registry()
    registry.load_all()
    (record,) = registry.records
    assert "SyntaxError" in record.reason
    assert record.location.endswith("half_saved.py:1")


def test_the_user_can_still_interrupt_a_slow_import(site):
    site.module("slow", "raise KeyboardInterrupt\n")
    site.distribution("anyblock-slow", families={"slow": "slow:Descriptor"})
    with pytest.raises(KeyboardInterrupt):
        get_family("slow", registry=site.registry())


def test_only_the_adapter_asked_for_is_imported(site):
    for name in ("one", "two"):
        site.module(f"plugin_{name}")
        site.distribution(f"anyblock-{name}", families={name: f"plugin_{name}:Descriptor"})
    get_family("one", registry=site.registry())
    assert "plugin_one" in sys.modules
    assert "plugin_two" not in sys.modules


def test_a_failed_import_leaves_no_half_imported_package(site):
    site.module("halfway/__init__", "from halfway import first\nfrom halfway import second\n")
    site.module("halfway/first", "value = 1\n")
    site.module("halfway/second", "raise OSError('no such library')\n")
    site.distribution("anyblock-halfway", families={"halfway": "halfway:Descriptor"})
    registry = site.registry()
    registry.load_all()
    assert not [name for name in sys.modules if name.partition(".")[0] == "halfway"]
    assert registry.records[0].location.endswith("second.py:1")


def test_one_bad_entry_point_of_a_distribution_leaves_its_other_one_usable(site):
    site.module(
        "pair", "from anyblock.descriptors import DenseDescriptor\nclass A(DenseDescriptor):\n    pass\nB = 3\n"
    )
    site.distribution("anyblock-pair", families={"a": "pair:A", "b": "pair:B"})
    registry = site.registry()
    registry.load_all()
    (record,) = registry.records
    assert record.status is PluginStatus.FAILED
    assert record.reason.startswith("b: ")
    assert get_family("a", registry=registry).final_norm_name() == "model.norm"


def test_a_plugin_may_be_a_class_an_instance_or_a_module(site):
    site.module(
        "shapes",
        "from anyblock.descriptors import DenseDescriptor\n"
        "from anyblock.contract.hookspecs import hookimpl\n"
        "class A(DenseDescriptor):\n    pass\n"
        "b = A()\n"
        "@hookimpl\n"
        "def layer_block_name(index):\n    return f'h.{index}'\n",
    )
    site.distribution("anyblock-shapes", families={"a": "shapes:A", "b": "shapes:b", "c": "shapes"})
    registry = site.registry()
    assert [get_family(name, registry=registry).layer_block_name(2) for name in "abc"] == [
        "model.layers.2",
        "model.layers.2",
        "h.2",
    ]


def test_a_hook_that_only_another_core_has_is_allowed_when_it_is_marked_as_optional(site):
    site.module(
        "ahead",
        "from anyblock.descriptors import DenseDescriptor\n"
        "from anyblock.contract.hookspecs import hookimpl\n"
        "class A(DenseDescriptor):\n"
        "    @hookimpl(optionalhook=True)\n"
        "    def hook_of_core_two(self, something):\n        return 1\n",
    )
    site.distribution("anyblock-ahead", families={"a": "ahead:A"})
    assert get_family("a", registry=site.registry()).implements("final_norm_name")
