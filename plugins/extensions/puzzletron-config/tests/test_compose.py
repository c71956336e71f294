"""The `defaults` list: which file goes where, and which are out of reach."""

from __future__ import annotations

from pathlib import Path

import pytest
from anyblock.config import load_config
from anyblock.config.dialects import Tools
from anyblock.contract.config_tree import Tree
from anyblock.errors import ConfigError
from anyblock.progress import SILENT, Progress
from anyblock_puzzletron_config.compose import compose as compose_with


def compose(path: Path, progress: Progress = SILENT) -> Tree:
    return compose_with(path, Tools(None, progress))


def test_files_go_below_the_keys_of_their_group(write) -> None:
    write("p: 1\nq: ${root}\n", "pruning/ffn.yaml")
    write("s: 2\n", "common.yaml")
    write("t: 3\n", "base.yaml")
    main = write(
        """
        defaults:
          - base
          - pruning: ffn
          - scoring: ../common
          - /common@realize
          - _self_
        root: 5
        """,
        "main.yaml",
    )
    tree = compose(main)
    assert tree.data == {
        "t": 3,
        "pruning": {"p": 1, "q": "${root}"},
        "scoring": {"s": 2},
        "realize": {"s": 2},
        "root": 5,
    }
    assert tree.origin(("pruning", "q")) == f"{main.parent}/pruning/ffn.yaml:2"
    assert tree.origin(("scoring", "s")) == f"{main.parent}/common.yaml:1"
    assert tree.origin(("root",)) == f"{main}:7"


def test_the_files_own_content_wins_unless_self_says_where_it_stands(write) -> None:
    write("a: 1\nb: {x: 1}\n", "base.yaml")
    assert compose(write("defaults: [base]\na: 2\nb: {y: 2}\n")).data == {"a": 2, "b": {"x": 1, "y": 2}}
    assert compose(write("defaults: [_self_, base]\na: 2\n")).data == {"a": 1, "b": {"x": 1}}
    assert compose(write("defaults: [base, _self_]\na: 2\n")).data["a"] == 2


def test_later_files_win(write) -> None:
    write("a: 1\nb: [1, 2]\n", "one.yaml")
    write("a: 2\nb: [3]\n", "two.yaml")
    tree = compose(write("defaults: [one, two]\n"))
    assert tree.data == {"a": 2, "b": [3]}
    assert tree.origin(("a",)).endswith("two.yaml:1")


def test_included_files_include_others_relative_to_themselves(write) -> None:
    write("a: 1\n", "group/sub/leaf.yaml")
    write("defaults: [sub/leaf, /top, sibling, /group/sub/leaf@_here_, top@_global_]\n", "group/mid.yaml")
    write("b: 2\n", "top.yaml")
    write("g: 4\n", "group/top.yaml")
    write("c: 3\n", "group/sibling.yaml")
    assert compose(write("defaults: [{group: mid}]\n")).data == {
        "group": {"sub": {"a": 1}, "b": 2, "c": 3, "a": 1},
        "g": 4,
    }


def test_a_package_header_moves_a_file(write) -> None:
    write("# @package _global_\na: 1\n", "group/one.yaml")
    write("# @package _group_\nb: 1\n", "group/two.yaml")
    write("# @package x.y\nc: 1\n", "group/three.yaml")
    main = write("defaults: [{group: [one, two, three]}, {group@here: one}]\n")
    assert compose(main).data == {"a": 1, "group": {"b": 1}, "x": {"y": {"c": 1}}, "here": {"a": 1}}


def test_what_is_optional_empty_or_for_hydra_is_left_out(write, notes) -> None:
    main = write(
        """
        defaults:
          - optional nothing
          - optional group: nothing
          - bypass:
          - override hydra/hydra_logging: disabled
        a: 1
        """
    )
    assert compose(main, notes).data == {"a": 1}
    assert notes.lines == [f"{main}:5: accepted without effect: override hydra/hydra_logging"]


@pytest.mark.parametrize(
    "entry",
    [
        "../outside",
        "/../outside",
        "a/../../outside",
        "group: ../../outside",
        "..",
        "/",
        "a/..",
        "/a/../../../etc/passwd",
    ],
)
def test_nothing_outside_the_main_files_folder_is_read(write, entry: str) -> None:
    write("secret: 1\n", "outside.yaml")
    write("x: 1\n", "inside/a/x.yaml")
    main = write(f"defaults:\n  - {entry}\n", "inside/main.yaml")
    with pytest.raises(ConfigError, match=rf"{main}:2: '.*' is outside {main.parent}"):
        compose(main)


def test_what_is_not_below_the_main_file_is_looked_for_above_it(write) -> None:
    """The reference's main files lie two levels below the folder that Hydra is given."""
    write("p: 1\n", "configs/pruning/ffn.yaml")
    write("near: 1\n", "configs/family/model/near.yaml")
    write("near: 2\n", "configs/near.yaml")
    main = write("defaults:\n  - /pruning: ffn\n  - near\n", "configs/family/model/main.yaml")
    assert compose(main).data == {"pruning": {"p": 1}, "near": 1}


def test_an_absolute_path_means_the_main_files_folder(write, tmp_path: Path) -> None:
    outside = write("secret: 1\n", "outside.yaml")
    main = write(f"defaults: ['{outside.with_suffix('')}']\n", "inside/main.yaml")
    with pytest.raises(ConfigError, match="there is no"):
        compose(main)


def test_a_link_that_leads_outside_is_refused(write, tmp_path: Path) -> None:
    outside = write("secret: 1\n", "outside.yaml")
    main = write("defaults: [link]\n", "inside/main.yaml")
    (tmp_path / "inside" / "link.yaml").symlink_to(outside)
    with pytest.raises(ConfigError, match="leads outside"):
        compose(main)


@pytest.mark.parametrize(
    "entry",
    [
        "3",
        "[a]",
        "{}",
        "{a: b, c: d}",
        "{a: {b: c}}",
        "{a: 3}",
        "'${x}'",
        "{a: '${x}'}",
        "http://example.org/a",
        "'~/a'",
        "'a b'",
        "'C:\\a'",
        "'a*'",
        "''",
    ],
)
def test_other_entries_are_refused(write, entry: str) -> None:
    main = write(f"a: 1\ndefaults:\n  - {entry}\n")
    with pytest.raises(ConfigError, match=rf"{main}:3: "):
        compose(main)


@pytest.mark.parametrize("defaults", ["base", "{a: b}", "3"])
def test_defaults_has_to_be_a_list(write, defaults: str) -> None:
    with pytest.raises(ConfigError, match="defaults is a"):
        compose(write(f"defaults: {defaults}\n"))


def test_a_missing_file_is_named(write) -> None:
    main = write("defaults:\n  - pruning: fnn\n")
    with pytest.raises(ConfigError, match=rf"{main}:2: there is no {main.parent}/pruning/fnn.yaml"):
        compose(main)


def test_files_that_include_each_other_end(write) -> None:
    write("defaults: [b]\n", "a.yaml")
    write("defaults: [a]\n", "b.yaml")
    with pytest.raises(ConfigError, match="includes itself"):
        compose(write("defaults: [a]\n"))


def test_very_many_files_are_refused(write) -> None:
    # Every file includes the next one twice: 2^20 files without a limit.
    for level in range(20):
        write(f"defaults: [f{level + 1}, f{level + 1}]\n", f"f{level}.yaml")
    write("a: 1\n", "f20.yaml")
    with pytest.raises(ConfigError, match="more than 64 files"):
        compose(write("defaults: [f0]\n"))


def test_own_files_can_be_composed(write) -> None:
    write("ffn: {sizes: [0.5]}\n", "pruning/half.yaml")
    config = load_config(write("defaults: [{pruning: half}]\nmodel: a\noutput: b\n"))
    assert config.pruning.ffn.sizes == (0.5,)
