"""All mutants, in the order of the checks that they are for."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass

from anyblock.family import ModelFamily

MODULES = (
    "structure",
    "structure_shapes",
    "convert",
    "build",
    "build_manners",
    "prune",
    "prune_sparse",
    "prune_residual",
    "search",
)


@dataclass(frozen=True)
class Mutant:
    """A wrong adapter.

    Attributes:
        name: its fault in words.
        check: the id of the check that has to notice it.
        descriptor: its class.
    """

    name: str
    check: str
    descriptor: type

    def family(self) -> ModelFamily:
        return ModelFamily.from_descriptor(self.descriptor, model_type=self.descriptor._model_type)


def mutant(check: str):
    """Mark a descriptor as the mutant for a check."""

    def decorate(cls: type) -> type:
        cls.mutant_of = check
        return cls

    return decorate


def _found() -> list[Mutant]:
    mutants = []
    for module in MODULES:
        for value in vars(importlib.import_module(f"mutants.{module}")).values():
            if isinstance(value, type) and "mutant_of" in vars(value):
                words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[a-z])(?=\d)", " ", value.__name__)
                mutants.append(Mutant(words.lower(), value.mutant_of, value))
    return mutants


MUTANTS = _found()
