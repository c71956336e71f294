"""Checkpoint names: those of every layer, and those in front of and after the layers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from anyblock.errors import UnsupportedModelError
from anyblock.modeling.weights import owners_of

from anyblock_new_family.introspection.halves import prefixes
from anyblock_new_family.introspection.layers import LayerList
from anyblock_new_family.introspection.model import TinyModel


@dataclass(frozen=True)
class OuterNames:
    """Checkpoint names outside of the layers, as prefixes."""

    layers: str
    embeddings: tuple[str, ...]
    head: tuple[str, ...]
    extra: Mapping[str, str]


def layers_prefix(tiny: TinyModel, path: str) -> str:
    """Return the path of the layers in checkpoint names.

    Raises:
        UnsupportedModelError: the layers' tensors have no common prefix with the layer's number after it.
    """
    found = set()
    for name, module in tiny.names.items():
        if module.startswith(f"{path}.0."):
            found.add(name.partition(".0.")[0])
    if len(found) != 1:
        raise UnsupportedModelError(f"the layers' tensors are stored below {sorted(found)}", expected="one prefix")
    return found.pop()


def decoder_paths(layers: str, embedding: str, norm: str, head: str, outer: OuterNames) -> dict[str, Any]:
    """Return the attributes of a `DescriptorBase` that say where a decoder lies: prefixes, and paths below them.

    Args:
        layers, embedding, norm, head: module paths; a `norm` of `""` means that there is none.
        outer: the checkpoint names.

    Raises:
        UnsupportedModelError: the layers are stored under another name than below another prefix.
    """
    parts = [path.split(".")[:-1] for path in (layers, embedding, norm) if path]
    sizes = [len(path) for path in parts]
    shared = list(parts[sizes.index(min(sizes))])
    while any(path[: len(shared)] != shared for path in parts):
        shared.pop()
    prefix = "".join(f"{part}." for part in shared)
    below, above = layers.removeprefix(prefix), outer.layers.removesuffix(layers.removeprefix(prefix))
    if above == outer.layers or not (above == "" or above.endswith(".")):
        raise UnsupportedModelError(f"{layers} is stored as {outer.layers}", expected=f"a path that ends with {below}")
    usual = {f"{above}{path.removeprefix(prefix)}" for path in (embedding, norm) if path}
    return {
        "decoder_prefix": prefix.removesuffix("."),
        "checkpoint_prefix": above.removesuffix(".") if above != prefix else None,
        "embedding": embedding.removeprefix(prefix),
        "layers": below,
        "final_norm": norm.removeprefix(prefix),
        "head": head,
        "checkpoint_embeddings": None if usual.issuperset(outer.embeddings) else outer.embeddings,
        "checkpoint_head": None if {*usual, head}.issuperset(outer.head) else outer.head,
    }


def stored_names(tiny: TinyModel, path: str) -> list[dict[str, str]]:
    """Return `{checkpoint name below the layer: module name below the layer}` of every layer."""
    prefix = layers_prefix(tiny, path)
    layers: list[dict[str, str]] = [{} for _ in range(int(tiny.text.num_hidden_layers))]
    for name, module in tiny.names.items():
        match = re.fullmatch(rf"{re.escape(path)}\.(\d+)\.(.+)", module)
        if match:
            index = int(match[1])
            layers[index][name.removeprefix(f"{prefix}.{index}.")] = match[2]
    return layers


def outer_names(tiny: TinyModel, listed: LayerList, head: str) -> OuterNames:
    """Return the names outside of the layers, sorted by whether their modules run in front of or after the layers."""
    before, behind, extra = list[str](), list[str](), list[str]()
    shared = owners_of(tiny.model)
    for name, module in tiny.names.items():
        if module.startswith(f"{listed.path}."):
            continue
        owner = module.rpartition(".")[0]
        if not _ran(owner, listed):  # a module that is tied to it may
            owner = next((other for other in shared.get(module, ()) if _ran(other, listed)), owner)
        tail = module == head or module.startswith(f"{head}.") or owner in listed.after
        if tail:
            behind.append(name)
        elif (
            owner in listed.before
            or any(owner.startswith(f"{part}.") for part in listed.before)
            or not _ran(owner, listed)
        ):
            (before if _ran(owner, listed) or owner in listed.before else extra).append(name)
        else:
            before.append(name)
    every = {"embeddings": before, "head": behind, "extra": extra}
    inside = [name for name, module in tiny.names.items() if module.startswith(f"{listed.path}.")]

    def shortest(group: str) -> tuple[str, ...]:
        others = [name for key, names in every.items() if key != group for name in names] + inside
        return prefixes(every[group], others)

    kept = shortest("extra")
    pattern = rf"(?:{'|'.join(map(re.escape, kept))})(?:\..+)?"
    return OuterNames(
        layers_prefix(tiny, listed.path),
        shortest("embeddings"),
        shortest("head"),
        {"not_run_on_text": pattern} if kept else {},
    )


def _ran(owner: str, listed: LayerList) -> bool:
    return owner in listed.before or owner in listed.after
