"""The Python source of an inferred adapter."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import Any, Final

from anyblock.descriptors.layout import HalfLayout, LayoutDescriptor
from anyblock.introspection.facts import InferredFamily, MixinCall
from anyblock.new_family.bases import fitting_base

_MAPPINGS: Final = ("attention_kinds", "ffn_kinds", "extra_groups", "lacking", "absent")


def class_name(model_type: str) -> str:
    """Return the descriptor's class name for a `model_type`."""
    return "".join(part.title() for part in model_type.replace("-", "_").split("_")) + "Descriptor"


def descriptor_source(inferred: InferredFamily) -> str:
    """Return the module that defines the descriptor, unformatted.

    The class derives from core's base for dense or for sparse decoders where that answers the same (see `fitting_base`),
    and from `LayoutDescriptor` otherwise.
    """
    module, _, config = inferred.tiny.config_class.rpartition(".")
    chosen = fitting_base(inferred)
    base = LayoutDescriptor if chosen is None else chosen[0]
    attributes = _attributes(inferred) if chosen is None else _plain(inferred, chosen[1])
    mixins = inferred.mixins if chosen is None else ()
    names = [base.__name__, *(["HalfLayout"] if chosen is None else [])]
    typed = [name for name in ("Mapping", "ClassVar") if any(f"{name}[" in line for line in attributes)]
    lines = [
        f'"""AnyBlock adapter for `{inferred.model_type}` models, written by `anyblock new-family`."""',
        "",
        "from __future__ import annotations",
        "",
        *(["from collections.abc import Mapping"] if "Mapping" in typed else []),
        f"from typing import {', '.join(['TYPE_CHECKING', *(['ClassVar'] if 'ClassVar' in typed else [])])}",
        "",
        f"from anyblock.descriptors import {', '.join(sorted(names))}",
        "from anyblock.contract.hookspecs import hookimpl",
        "",
        "if TYPE_CHECKING:",
        *(["    from anyblock.contract.pruning_mixin import PruningMixIn"] if mixins else []),
        f"    from {module} import {config}",
        "",
        f'__all__ = ["{class_name(inferred.model_type)}"]',
        "",
        "",
        f"class {class_name(inferred.model_type)}({base.__name__}):",
        f'    """{_summary(inferred)}"""',
        "",
        *(f"    {line}" for line in attributes),
        "",
        *([textwrap.indent(_mixins(mixins), "    "), ""] if mixins else []),
        "    @hookimpl",
        f"    def conformance_config(self) -> {config}:",
        '        """See `FamilySpec.conformance_config`."""',
        f"        from {module} import {config}",
        "",
        f"        return {config}({', '.join(f'{name}={expression(value)}' for name, value in inferred.tiny.values.items())})",
    ]
    return "\n".join(lines) + "\n"


def _plain(inferred: InferredFamily, attributes: Mapping[str, Any]) -> list[str]:
    """Return the lines of a class whose base needs few attributes, with what they rest on in front."""
    lines = [f"# {place} ({seen})" for place, seen in inferred.evidence.items()]
    for name, value in attributes.items():
        kind = ": ClassVar[Mapping[str, str]]" if isinstance(value, Mapping) else ""
        lines.append(f"{name}{kind} = {expression(value)}")
    return _wrapped(lines)


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
    return _wrapped(lines)


def _wrapped(lines: list[str]) -> list[str]:
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
    if isinstance(value, list):
        return f"[{', '.join(map(expression, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
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
