"""Two adaptations: the child is trained against its teacher, layer by layer or as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl

if TYPE_CHECKING:
    from anyblock.contract.adaptation import Adaptation


class DistillationExtension:
    """Brings both."""

    @hookimpl
    def adaptations(self) -> dict[str, type[Adaptation]]:
        """See `FamilySpec.adaptations`."""
        from anyblock_distillation.stages import BlockDistillation, ModelDistillation

        return {"distill-blocks": BlockDistillation, "distill-model": ModelDistillation}
