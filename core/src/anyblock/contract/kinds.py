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
        module: the module of `anyblock.contract` with its class; the hook of `FamilySpec` that returns `{name: object}` is the
            module's plural.
        base: the class that such an object derives from; imported only when an object is checked.
        summary: what such an object is for.
        settings: where the settings of one object stand in the YAML file, with `{name}`; empty where it has none there.
        classes: whether the hook returns classes; instances otherwise.
    """

    name: str
    module: str
    base: str
    summary: str
    settings: str = ""
    classes: bool = True

    @property
    def hook(self) -> str:
        """The collecting hook of `FamilySpec`."""
        return f"{self.module}s"

    @property
    def singular(self) -> str:
        """What one of them is called in a message."""
        return "pruning kind" if self.name == "kinds" else self.module.replace("_", " ")

    def base_class(self) -> type[Any]:
        """Import and return the class that an object of this kind derives from."""
        found: type[Any] = getattr(importlib.import_module(f"anyblock.contract.{self.module}"), self.base)
        return found

    def accepts(self, value: object) -> bool:
        """Return whether this is an object (or a class) of this kind."""
        base = self.base_class()
        return isinstance(value, type) and issubclass(value, base) if self.classes else isinstance(value, base)


_KINDS: Final = (
    Kind("hooks", "importance_hook", "ImportanceHook", "ranks the units of a subblock from activations"),
    Kind("kinds", "pruning_mixin", "PruningMixIn", "makes a subblock smaller along one axis", "pruning.{name}", False),
    Kind("sources", "candidate_source", "CandidateSource", "makes candidates for a half of a layer", "pruning.{name}"),
    Kind("formats", "export_format", "ExportFormat", "writes a child in a form that other tools read"),
    Kind("metrics", "scoring_metric", "ScoringMetric", "says how far a child is from its teacher", "scoring.{name}"),
    Kind("costs", "cost", "Cost", "is what a budget can bound, counted or measured", "costs.{name}"),
    Kind("adaptations", "adaptation", "Adaptation", "adapts the weights of a chosen child", "adaptation.{name}"),
    Kind("dialects", "config_dialect", "ConfigDialect", "reads the configuration files of another tool"),
    Kind("readers", "text_reader", "TextReader", "reads calibration text out of files"),
    Kind("evaluations", "evaluation", "Evaluation", "measures something on the finished child", "evaluation.{name}"),
    Kind("executors", "executor", "Executor", "says where the tasks of a run are computed", "execution.{name}"),
    Kind("types", "storage_type", "StorageType", "says how a file stores numbers, for the search", "", False),
    Kind("sections", "report_section", "ReportSection", "adds a section to a run's report", "report.{name}"),
)
KINDS: Final[dict[str, Kind]] = {kind.name: kind for kind in _KINDS}
"""Every kind by name."""
