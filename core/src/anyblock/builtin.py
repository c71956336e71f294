"""Core's own hooks, formats and other kinds: one plugin, registered through the same relay as anyone's.

What a hook returns is imported when it is asked for, so that looking up a family loads nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

from anyblock.contract.hookspecs import hookimpl

_GIVEN: Final[dict[str, str | dict[str, str]]] = {
    "importance_hooks": "anyblock.importance:HOOKS",
    "export_formats": {"transformers": "anyblock.export.transformers_format:TransformersFormat"},
    "scoring_metrics": "anyblock.modeling.metrics:METRICS",
    "adaptations": {"repair": "anyblock.stages.repair:LeastSquaresRepair"},
    "costs": "anyblock.costs.counted:COUNTED",
    "candidate_sources": {"no_op": "anyblock.candidates.no_op:NoOp"},
    "text_readers": {"plain": "anyblock.calibration.plain_text:PlainText"},
    "executors": {"local": "anyblock.execution.local:LocalExecutor"},
}
"""`{hook of FamilySpec: where its result is, whole or name by name}`."""


def _loaded(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def _returning(place: str | Mapping[str, str]) -> Callable[[object], dict[str, Any]]:
    def found(self: object) -> dict[str, Any]:
        return dict(_loaded(place)) if isinstance(place, str) else {name: _loaded(own) for name, own in place.items()}

    return found


Builtins = type("Builtins", (), {hook: hookimpl(_returning(place)) for hook, place in _GIVEN.items()})
"""What every family has without any extension."""
