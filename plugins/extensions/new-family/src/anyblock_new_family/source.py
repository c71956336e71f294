"""The Python source of an inferred adapter."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, Final

from anyblock.contract.trust import CODE
from anyblock.descriptors import HalfLayout, LayoutDescriptor, Size

from anyblock_new_family.introspection.facts import InferredFamily, MixinCall

_KINDS: Final = ("attention_kinds", "ffn_kinds")


def class_name(model_type: str) -> str:
    """Return the descriptor's class name for a `model_type`."""
    return "".join(part.title() for part in model_type.replace("-", "_").split("_")) + "Descriptor"


def comes_as_code(inferred: InferredFamily) -> bool:
    """Return whether the classes come as code with a checkpoint."""
    return inferred.tiny.config_class.startswith(f"{CODE}.")


def descriptor_source(inferred: InferredFamily) -> str:
    """Return the module that defines the descriptor, a `LayoutDescriptor`, unformatted."""
    path = inferred.tiny.config_class
    module, _, config = path.rpartition(".")
    if own := comes_as_code(inferred):
        config = "Any"
    attributes = _attributes(inferred)
    used = [name for name in ("HalfLayout", "Size") if any(f"{name}(" in line for line in attributes)]
    lines = [
        f'"""AnyBlock adapter for `{inferred.model_type}` models, written by `anyblock new-family`."""',
        "",
        "from __future__ import annotations",
        "",
        "from collections.abc import Mapping",
        f"from typing import TYPE_CHECKING, {'Any, ' if own else ''}ClassVar",
        "",
        "from anyblock.contract.hookspecs import hookimpl",
        f"from anyblock.descriptors import {', '.join(sorted(['LayoutDescriptor', *used]))}",
        *(["from anyblock.descriptors.base import import_dotted"] if own else []),
        "",
        *(["if TYPE_CHECKING:"] if inferred.mixins or not own else []),
        *(["    from anyblock.contract.pruning_mixin import PruningMixIn"] if inferred.mixins else []),
        *([] if own else [f"    from {module} import {config}"]),
        "",
        f'__all__ = ["{class_name(inferred.model_type)}"]',
        "",
        "",
        f"class {class_name(inferred.model_type)}(LayoutDescriptor):",
        f'    """{_summary(inferred)}"""',
        "",
        *(f"    {line}" for line in attributes),
        "",
        *([textwrap.indent(_mixins(inferred.mixins), "    "), ""] if inferred.mixins else []),
        "    @hookimpl",
        f"    def conformance_config(self) -> {config}:",
        '        """See `FamilySpec.conformance_config`."""',
        *([] if own else [f"        from {module} import {config}", ""]),
        f"        return {f'import_dotted({path!r})' if own else config}({_arguments(inferred.tiny.values)})",
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
        if name in _KINDS:
            seen = [f"# {place} ({text})" for place, text in inferred.evidence.items() if place.startswith(name[:3])]
            lines += ["\n    ".join(textwrap.wrap(line, 110, subsequent_indent="# ")) for line in seen]
            kind = ": ClassVar[Mapping[str, HalfLayout]]"
        elif isinstance(value, Mapping):
            kind = ": ClassVar[Mapping[str, str]]"
        lines.append(f"{name}{kind} = {expression(value)}")
    return lines


def expression(value: Any) -> str:
    """Return a value as Python source; fields of a layout or a size that have their defaults are left out."""
    if isinstance(value, HalfLayout | Size):
        shown = {
            own.name: getattr(value, own.name)
            for own in fields(value)
            if getattr(value, own.name)
            != (own.default_factory() if own.default_factory is not MISSING else own.default)
        }
        first = [repr(shown.pop("attribute"))] if isinstance(value, Size) else []
        return f"{type(value).__name__}({', '.join([*first, *filter(None, [_arguments(shown)])])})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name!r}: {expression(own)}" for name, own in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(expression, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)


def _arguments(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={expression(value)}" for name, value in values.items())


def _mixins(calls: tuple[MixinCall, ...]) -> str:
    functions = sorted({call.function for call in calls})
    shown = [f"**{call.function}(self.checkpoint_layer, {_arguments(call.arguments)})" for call in calls]
    return (
        "def layout_mixins(self) -> dict[str, PruningMixIn]:\n"
        '    """See `DescriptorBase.layout_mixins`."""\n'
        f"    from anyblock.descriptors.mixins import {', '.join(functions)}\n\n"
        f"    return {{{', '.join(shown)}}}\n"
    )
