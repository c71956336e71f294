"""`ReportSection`: a part of a run's report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from anyblock.contract.settings import Configured


class ReportSection(Configured, ABC):
    """A section that is added to the end of `report.md`. Since 0.2.

    A run writes it where `report.sections` names it; one that fails is left out with a note.

    Class attributes:
        by_default: whether a run also writes it where `report.sections` is null.
        summary: one line.
        title: the section's heading.
        settings: the section of the configuration that stands under `report.NAME`; `self.settings_given` holds it.
    """

    by_default: ClassVar[bool] = False
    summary: ClassVar[str]
    title: ClassVar[str]

    @abstractmethod
    def markdown(self, summary: Mapping[str, Any], run: Path) -> str:
        """Return the section's text in Markdown, without the heading; "" leaves the section out.

        Args:
            summary: the content of the run's `summary.json`.
            run: the run folder.
        """
