"""Reading metadata: what is understood, and that broken metadata is one failed record and never an exception."""

from __future__ import annotations

import importlib.metadata
import shutil

import pytest
from anyblock.plugins import PluginRegistry, PluginSettings, PluginStatus

GOOD_ENTRY = "[anyblock.families]\ngood = good_plugin:Descriptor\n"


def test_a_record_says_what_the_metadata_say(site):
    site.distribution(
        "AnyBlock_Fancy",
        "2.3.1",
        families={"b": "fancy:B", "a": "fancy:A"},
        extensions={"extra": "fancy.more:Extra"},
        requires=(
            "anyblock[devices]>=0.1",
            'AnyBlock<1; python_version >= "3.8"',
            'anyblock>=9; extra == "future"',
            'anyblock>=9; sys_platform == "amiga"',
            "anyblock-llama>=7",
            "torch",
        ),
    )
    extension, family = site.registry().records
    assert (family.distribution, family.version, family.group) == ("AnyBlock_Fancy", "2.3.1", "anyblock.families")
    assert family.model_types == ("a", "b")
    assert family.requires_core == ">=0.1,<1"
    assert family.status is PluginStatus.READY
    assert family.reason == ""
    assert family.requirements == ("anyblock-llama>=7", "torch")
    assert (extension.group, extension.names, extension.model_types) == ("anyblock.extensions", ("extra",), ())


def test_without_a_requirement_on_core_any_core_will_do(site):
    site.distribution("anyblock-any", families={"a": "any:A"}, requires=())
    (record,) = site.registry().records
    assert (record.requires_core, record.status) == ("", PluginStatus.READY)


@pytest.mark.parametrize(
    ("wanted", "core", "status"),
    [
        (">=0.1,<1", "0.1.0", PluginStatus.READY),
        (">=0.2", "0.2.0rc1", PluginStatus.INCOMPATIBLE),
        (">=0.1", "0.2.0.dev3+local", PluginStatus.READY),
        (">=1,<2", "0.9", PluginStatus.INCOMPATIBLE),
        ("<0.1", "0.1.0", PluginStatus.INCOMPATIBLE),
        ("~=0.1.0", "0.1.7", PluginStatus.READY),
        ("==0.1.*", "0.2", PluginStatus.INCOMPATIBLE),
    ],
)
def test_the_wanted_range_is_checked_before_any_import(site, wanted, core, status):
    site.distribution("anyblock-picky", families={"a": "not_even_there:A"}, requires=(f"anyblock{wanted}",))
    registry = PluginRegistry.discover(PluginSettings(), found=site.found(), core_version=core)
    (record,) = registry.records
    assert record.status is status
    if status is PluginStatus.INCOMPATIBLE:
        assert core in record.reason
        assert "pip install" in record.reason


def test_an_incompatible_plugin_names_the_side_to_upgrade(site):
    site.distribution("anyblock-new", families={"a": "x:A"}, requires=("anyblock>=2,<3",))
    site.distribution("anyblock-old", families={"b": "x:B"}, requires=("anyblock<0.1",))
    new, old = site.registry().records
    assert "pip install 'anyblock>=2,<3'" in new.reason
    assert "pip install --upgrade anyblock-old" in old.reason


BROKEN = {
    "no name": ({"metadata": "Metadata-Version: 2.1\nVersion: 1.0\n"}, "no Name"),
    "no version": ({"metadata": "Metadata-Version: 2.1\nName: anyblock-bad\n"}, "invalid version ''"),
    "invalid version": ({"metadata": "Name: anyblock-bad\nVersion: latest\n"}, "invalid version 'latest'"),
    "empty metadata": ({"metadata": ""}, "no Name"),
    "invalid requirement": ({"requires": ("anyblock>=>1",)}, "invalid requirement 'anyblock>=>1'"),
    "invalid specifier": ({"requires": ("anyblock>=one",)}, "invalid requirement 'anyblock>=one'"),
    "invalid other requirement": ({"requires": ("torch !!",)}, "invalid requirement 'torch !!'"),
    "line without =": ({"entry_points": "[anyblock.families]\nbad\n"}, "malformed line 'bad'"),
    "line without a name": ({"entry_points": "[anyblock.families]\n= m:A\n"}, "malformed line"),
    "value without a module": ({"entry_points": "[anyblock.families]\nbad = :A\n"}, "malformed value ':A'"),
    "value with a path": ({"entry_points": "[anyblock.families]\nbad = src/a.py:A\n"}, "malformed value"),
    "value with two colons": ({"entry_points": "[anyblock.families]\nbad = a:b:c\n"}, "malformed value"),
    "no value": ({"entry_points": "[anyblock.families]\nbad =\n"}, "malformed value ''"),
    "one name twice": ({"entry_points": "[anyblock.families]\nbad = a:A\nbad = b:B\n"}, "registered twice"),
    "group in the singular": ({"entry_points": "[anyblock.family]\nbad = a:A\n"}, "mean 'anyblock.families'"),
    "misspelled extensions": ({"entry_points": "[anyblock.extention]\nx = a:A\n"}, "mean 'anyblock.extensions'"),
    "misspelled group": ({"entry_points": "[anyblock.familes]\nbad = a:A\n"}, "did you mean 'anyblock.families'"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_metadata_make_one_failed_record(site, fault):
    options, reason = BROKEN[fault]
    options = {"families": {"bad": "bad:A"}, **options}
    site.distribution("anyblock-bad", "1.0", **options)
    site.distribution("anyblock-good", families={"good": "good_plugin:Descriptor"})
    bad, good = sorted(site.registry().records, key=lambda record: record.status)
    assert bad.status is PluginStatus.FAILED
    assert reason in bad.reason
    assert "anyblock_bad-1.0.dist-info" in bad.reason
    assert (good.distribution, good.status) == ("anyblock-good", PluginStatus.READY)


def test_an_undecodable_entry_points_file_counts_when_it_may_concern_us(site):
    info = site.distribution("anyblock-bad", entry_points="x")
    (info / "entry_points.txt").write_bytes(b"[anyblock.families]\nbad = \xff\xfe:A\n")
    other = site.distribution("unrelated", entry_points="x", requires=("requests",))
    (other / "entry_points.txt").write_bytes(b"\xff\xfe")
    third = site.distribution("third-party", entry_points="x", requires=("anyblock>=0.1",))
    (third / "entry_points.txt").write_bytes(b"\xff\xfe")
    records = site.registry().records
    assert [record.distribution for record in records] == ["anyblock-bad", "third-party"]
    assert {record.status for record in records} == {PluginStatus.FAILED}
    assert all("cannot be read" in record.reason for record in records)


def test_a_folder_in_place_of_the_entry_points_file_is_reported(site):
    info = site.distribution("anyblock-bad")
    (info / "entry_points.txt").mkdir()
    (record,) = site.registry().records
    assert record.status is PluginStatus.FAILED
    assert "cannot be read" in record.reason


def test_undecodable_metadata_are_reported(site):
    info = site.distribution("anyblock-bad", families={"bad": "bad:A"})
    (info / "METADATA").write_bytes(b"Name: anyblock-bad\nVersion: 1\nSummary: \xff\xfe\n")
    (record,) = site.registry().records
    assert record.status is PluginStatus.FAILED


def test_other_distributions_and_groups_are_ignored(site):
    site.distribution("tool", entry_points="[console_scripts]\ntool = tool:main\n\n[not.anyblock.families]\na = b:c\n")
    site.distribution("broken-tool", entry_points="no section here\nanyblock.families everywhere\n")
    for group in ("something_of_core_two", "commands", "exporters", "plugins"):
        site.distribution(f"future-{group}", entry_points=f"[anyblock.{group}]\na = b:c\n")
    assert site.registry().records == ()


def test_comments_and_spaces_in_the_file_are_understood(site):
    text = "# a comment\n\n[ anyblock.families ]\n; another\n  a.b-c  =  pkg.mod : Outer.Inner  [extra]\n"
    site.distribution("anyblock-spaces", entry_points=text)
    (record,) = site.registry().records
    assert dict(record.entries) == {"a.b-c": "pkg.mod : Outer.Inner  [extra]"}
    assert record.status is PluginStatus.READY


def test_the_first_on_the_path_wins_and_does_not_clash_with_itself(site, tmp_path):
    site.distribution("anyblock-twice", "1.0", families={"a": "x:A"})
    second = type(site)(tmp_path / "second")
    second.distribution("Anyblock.Twice", "2.0", families={"a": "x:A"}, folder="Anyblock.Twice-2.0.dist-info")
    paths = [str(site.root), str(second.root)]
    for order, version in ((paths, "1.0"), (paths[::-1], "2.0")):
        found = list(importlib.metadata.distributions(path=order))
        (record,) = PluginRegistry.discover(PluginSettings(), found=found, core_version="0.1.0").records
        assert (record.version, record.status) == (version, PluginStatus.READY)
        assert len(record.duplicates) == 1
        # importlib.metadata comes to the same answer
        assert next(d.version for d in found if d.name.lower().replace(".", "-") == "anyblock-twice") == version


def test_a_plugin_hidden_by_one_without_entry_points_is_not_there(site, tmp_path):
    site.distribution("anyblock-hidden", "2.0")
    second = type(site)(tmp_path / "second")
    second.distribution("anyblock-hidden", "1.0", families={"a": "x:A"})
    found = importlib.metadata.distributions(path=[str(site.root), str(second.root)])
    assert PluginRegistry.discover(PluginSettings(), found=found).records == ()


def test_a_leftover_of_an_older_version_in_the_same_folder_does_not_clash(site):
    site.distribution("anyblock-twice", "1.10", families={"a": "x:A"})
    site.distribution("anyblock-twice", "1.9", families={"a": "x:A"})
    for found in (site.found(), site.found()[::-1]):
        (record,) = PluginRegistry.discover(PluginSettings(), found=found, core_version="0.1.0").records
        assert record.version == "1.10"
        assert [path.rpartition("/")[2] for path in record.duplicates] == ["anyblock_twice-1.9.dist-info"]


def test_one_folder_on_the_path_twice_is_one_distribution(site, tmp_path):
    site.distribution("anyblock-once", families={"a": "x:A"})
    link = tmp_path / "link"
    link.symlink_to(site.root, target_is_directory=True)
    found = importlib.metadata.distributions(path=[str(site.root), str(link), str(site.root)])
    (record,) = PluginRegistry.discover(PluginSettings(), found=found, core_version="0.1.0").records
    assert record.duplicates == ()


def test_an_egg_info_folder_and_a_zipped_distribution_are_read(site, tmp_path):
    info = site.distribution("anyblock-egg", families={"egg": "egg:A"})
    egg = site.root / "anyblock_egg-1.0-py3.11.egg-info"
    info.rename(egg)
    (egg / "METADATA").rename(egg / "PKG-INFO")
    site.distribution("anyblock-zip", families={"zip": "zip:A"})
    shutil.make_archive(str(tmp_path / "packed"), "zip", site.root)
    found = importlib.metadata.distributions(path=[str(tmp_path / "packed.zip")])
    records = PluginRegistry.discover(PluginSettings(), found=found, core_version="0.1.0").records
    assert "anyblock-zip" in [record.distribution for record in records]
    assert [record.status for record in site.registry().records] == [PluginStatus.READY] * 2
