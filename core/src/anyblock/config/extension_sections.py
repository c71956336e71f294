"""Settings of extensions: their sections become part of the schema, documented and validated as core's own are."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field, create_model

from anyblock.config.pruning import CORE_KINDS
from anyblock.contract.kinds import KINDS
from anyblock.contract.settings import Section

if TYPE_CHECKING:
    from anyblock.extensions import Extensions

_S = TypeVar("_S", bound=Section)


def sections_of(extensions: Extensions) -> dict[str, type[Section]]:
    """Return `{dotted path in the file: settings class}` of every installed object that has settings of its own."""
    found: dict[str, type[Section]] = {}
    for kind in KINDS.values():
        if not kind.settings:
            continue
        for name, value in extensions.named(kind.name).items():
            settings = getattr(value, "settings", None)
            if kind.name == "kinds" and name in CORE_KINDS:
                continue  # core's own kinds have fields of their own in the schema
            if isinstance(settings, type) and issubclass(settings, Section) and settings is not Section:
                path = getattr(value, "settings_path", "") or kind.settings.format(name=name)
                found[path] = settings
    return found


def with_sections(base: type[_S], sections: Mapping[str, type[Section]]) -> type[_S]:
    """Return a schema that also has these sections at their dotted paths; a section that `base` has already stays its own."""
    fields: dict[str, Any] = {}
    below: dict[str, dict[str, type[Section]]] = {}
    for path, section in sections.items():
        head, _, rest = path.partition(".")
        if rest:
            below.setdefault(head, {})[rest] = section
        elif head not in base.model_fields:
            summary = (inspect.getdoc(section) or "").partition("\n")[0]
            fields[head] = (section, Field(default_factory=section, description=summary))
    for head, inner in below.items():
        known = base.model_fields.get(head)
        parent = known.annotation if known is not None else Section
        if isinstance(parent, type) and issubclass(parent, Section):
            nested = with_sections(parent, inner)
            description = known.description if known is not None else ""
            fields[head] = (nested, Field(default_factory=nested, description=description))
    made: type[_S] = create_model(base.__name__, __base__=base, __doc__=base.__doc__, **fields)
    return made
