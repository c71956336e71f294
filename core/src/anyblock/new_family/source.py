"""The Python source of an inferred adapter."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any, Final

from anyblock.descriptors.layout import HalfLayout, LayoutDescriptor
from anyblock.introspection.facts import InferredFamily, MixinCall

_MAPPINGS: Final = ("attention_kinds", "ffn_kinds", "extra_groups", "lacking", "absent")


def class_name(model_type: str) -> str:
    """Return the descriptor's class name for a `model_type`."""
    return "".join(part.title() for part in model_type.replace("-", "_").split("_")) + "Descriptor"


def descriptor_source(inferred: InferredFamily) -> str:
    """Return the module that defines the descriptor, unformatted."""
    config = inferred.tiny.config_class.rpartition(".")[2]
    module = inferred.tiny.config_class.rpartition(".")[0]
    lines = [
        f'"""AnyBlock adapter for `{inferred.model_type}` models, written by `anyblock new-family`."""',
        "",
        "from __future__ import annotations",
        "",
        "from collections.abc import Mapping",
        "from typing import TYPE_CHECKING, ClassVar",
        "",
        "from anyblock.descriptors import HalfLayout, LayoutDescriptor",
        "from anyblock.hookspecs import hookimpl",
        "",
        "if TYPE_CHECKING:",
        *(["    from anyblock.pruning.mixin import PruningMixIn"] if inferred.mixins else []),
        f"    from {module} import {config}",
        "",
        f'__all__ = ["{class_name(inferred.model_type)}"]',
        "",
        "",
        f"class {class_name(inferred.model_type)}(LayoutDescriptor):",
        f'    """{_summary(inferred)}"""',
        "",
        *(f"    {line}" for line in _attributes(inferred)),
        "",
        *([textwrap.indent(_mixins(inferred.mixins), "    "), ""] if inferred.mixins else []),
        "    @hookimpl",
        f"    def conformance_config(self) -> {config}:",
        '        """See `FamilySpec.conformance_config`."""',
        f"        from {module} import {config}",
        "",
        f"        return {config}({', '.join(f'{name}={value!r}' for name, value in inferred.tiny.values.items())})",
    ]
    return "\n".join(lines) + "\n"


def _summary(inferred: InferredFamily) -> str:
    attention, ffn = len(inferred.kinds("attention")), len(inferred.kinds("ffn"))
    return f"{inferred.model_type}: {attention} kind(s) of attention and {ffn} of ffn, as a tiny model showed them."


def _attributes(inferred: InferredFamily) -> list[str]:
    lines = []
    for name, value in inferred.attributes.items():
        if getattr(LayoutDescriptor, name, None) == value:
            continue
        kind = ""
        if name in ("attention_kinds", "ffn_kinds"):
            lines += [f"# {place} ({seen})" for place, seen in inferred.evidence.items() if place.startswith(name[:3])]
            kind = ": ClassVar[Mapping[str, HalfLayout]]"
        elif name in _MAPPINGS:
            kind = ": ClassVar[Mapping[str, str]]"
        elif name == "decoder_layer" and len(value) == 1:
            value = value[0]
        lines.append(f"{name}{kind} = {expression(value)}")
    return [
        line
        if len(line) < 130 or not line.startswith("#")
        else "\n    ".join(textwrap.wrap(line, 110, subsequent_indent="# "))
        for line in lines
    ]


def expression(value: Any) -> str:
    """Return a value as Python source; fields of a layout that have their defaults are left out."""
    if isinstance(value, HalfLayout):
        plain = HalfLayout(names=())
        given = {name: getattr(value, name) for name in value.__dataclass_fields__}
        shown = {name: own for name, own in given.items() if name == "names" or own != getattr(plain, name)}
        return f"HalfLayout({', '.join(f'{name}={expression(own)}' for name, own in shown.items())})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name!r}: {expression(own)}" for name, own in value.items()) + "}"
    return repr(value)


def _mixins(calls: tuple[MixinCall, ...]) -> str:
    functions = sorted({call.function for call in calls})
    shown = [
        f"**{call.function}(self.checkpoint_layer, {', '.join(f'{name}={value!r}' for name, value in call.arguments.items())})"
        for call in calls
    ]
    return (
        "def layout_mixins(self) -> dict[str, PruningMixIn]:\n"
        '    """See `LayoutDescriptor.layout_mixins`."""\n'
        f"    from anyblock.pruning.layouts import {', '.join(functions)}\n\n"
        f"    return {{{', '.join(shown)}}}\n"
    )
