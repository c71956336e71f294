"""Every kind of extension: the hook that collects it, the class it derives from, and where its settings stand."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Kind:
    """One kind of thing that a plugin can add under a name.

    Attributes:
        name: as `anyblock list` takes it, in the plural.
        hook: the collecting hook of `FamilySpec` that returns `{name: object}`.
        base: the class that such an object derives from, as `module:class`; imported only when an object is checked.
        classes: whether the hook returns classes; instances otherwise.
        settings: where the settings of one object stand in the YAML file, with `{name}`; empty where it has none there.
        summary: what such an object is for.
    """

    name: str
    hook: str
    base: str
    summary: str
    settings: str = ""
    classes: bool = False

    @property
    def singular(self) -> str:
        """What one of them is called in a message."""
        return {"hooks": "importance hook", "kinds": "pruning kind", "formats": "export format"}.get(
            self.name, self.hook.removesuffix("s").replace("_", " ")
        )

    def base_class(self) -> type[Any]:
        """Import and return the class that an object of this kind derives from."""
        module, _, name = self.base.partition(":")
        found: type[Any] = getattr(importlib.import_module(module), name)
        return found

    def accepts(self, value: object) -> bool:
        """Return whether this is an object (or a class) of this kind."""
        base = self.base_class()
        return isinstance(value, type) and issubclass(value, base) if self.classes else isinstance(value, base)


KINDS: Final[dict[str, Kind]] = {
    kind.name: kind
    for kind in (
        Kind(
            "hooks",
            "importance_hooks",
            "anyblock.contract.importance_hook:ImportanceHook",
            "ranks the units of a subblock from activations",
            classes=True,
        ),
        Kind(
            "kinds",
            "pruning_mixins",
            "anyblock.contract.pruning_mixin:PruningMixIn",
            "makes a subblock smaller along one axis",
            settings="pruning.{name}",
        ),
        Kind(
            "sources",
            "candidate_sources",
            "anyblock.contract.candidate_source:CandidateSource",
            "makes candidates for a half from its weights alone",
            settings="pruning.{name}",
            classes=True,
        ),
        Kind(
            "formats",
            "export_formats",
            "anyblock.contract.export_format:ExportFormat",
            "writes a child in a form that other tools read",
            classes=True,
        ),
        Kind(
            "metrics",
            "scoring_metrics",
            "anyblock.contract.scoring_metric:ScoringMetric",
            "says how far a child is from its teacher",
            settings="scoring.{name}",
            classes=True,
        ),
        Kind(
            "costs",
            "costs",
            "anyblock.contract.cost:Cost",
            "is what a budget can bound: counted from shapes, or measured on a device",
            settings="costs.{name}",
            classes=True,
        ),
        Kind(
            "adaptations",
            "adaptations",
            "anyblock.contract.adaptation:Adaptation",
            "adapts the weights of a chosen child before it is written",
            settings="adaptation.{name}",
            classes=True,
        ),
        Kind(
            "dialects",
            "config_dialects",
            "anyblock.contract.config_dialect:ConfigDialect",
            "reads the configuration files of another tool",
            classes=True,
        ),
        Kind(
            "evaluations",
            "evaluations",
            "anyblock.contract.evaluation:Evaluation",
            "measures something on the finished child",
            settings="evaluation.{name}",
            classes=True,
        ),
        Kind(
            "sections",
            "report_sections",
            "anyblock.contract.report_section:ReportSection",
            "adds a section to a run's report",
            settings="report.{name}",
            classes=True,
        ),
    )
}
"""Every kind by name."""
