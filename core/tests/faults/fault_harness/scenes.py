"""The commands that are killed, by name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from .calls import compress_arguments
from .push_scene import push_scene
from .scene import Props, Scene

LATENCY = ["--budget", "latency=0.9x", "search.length=24", "search.generated=8", "search.timing_rounds=1"]


def convert_scene(props: Props) -> Scene:
    return Scene(props.warm, ["convert", str(props.model), str(props.root / "out")], props.root, [props.model], ["out"])


def compress_scene(props: Props) -> Scene:
    argv = compress_arguments(props.model, props.root / "child", props.text)
    return Scene(props.warm, argv, props.root, [props.model], ["child", "child.run/teacher"])


def hidden_size_scene(props: Props) -> Scene:
    argv = compress_arguments(props.model, props.root / "child", props.text, "pruning.hidden_size.sizes=[0.75]")
    return Scene(props.warm, argv, props.root, [props.model], ["child", "child.run/teacher", "child.run/narrowed"])


def latency_scene(props: Props) -> Scene:
    """Times differ from run to run, and with them the child; a clock that counts work makes them comparable."""
    argv = compress_arguments(props.model, props.root / "child", props.text, *LATENCY)
    whole = ["child", "child.run/teacher"]
    return Scene(props.warm, argv, props.root, [props.model], whole, prepare={"name": "work_clock"})


def made(props: Props) -> Path:
    """Make a child that every format can express: halves removed, no width changed. Its run stays beside it."""
    child = props.root / "made"
    argv = compress_arguments(props.model, child, props.text, "pruning.ffn.sizes=[]", "pruning.repair.method=none")
    done = props.warm.run(argv)
    assert done.code == 0, done.stderr
    return child


def _export_scene(name: str) -> Callable[[Props], Scene]:
    def make(props: Props) -> Scene:
        child = made(props)
        shutil.rmtree(props.root / "made.run")
        export = ["export", str(child), str(props.root / "out"), "--format", name]
        return Scene(props.warm, export, props.root, [child], ["out"])

    return make


SCENES: dict[str, Callable[[Props], Scene]] = {
    "convert": convert_scene,
    "compress": compress_scene,
    "compress with a hidden size": hidden_size_scene,
    "compress under latency": latency_scene,
    "export to transformers": _export_scene("transformers"),
    "export to nemotron-nas": _export_scene("nemotron-nas"),
    "export to anymodel": _export_scene("anymodel"),
    "push": lambda props: push_scene(props, made(props)),
    "push to a branch": lambda props: push_scene(props, made(props), "--revision", "small"),
    "push an exported form": lambda props: push_scene(props, made(props), "--format", "transformers"),
    "push over files": lambda props: push_scene(props, made(props), "--overwrite"),
}
"""Commands to kill, by name. A further command that writes is one more entry, and one more line in `test_killed.POINTS`."""
