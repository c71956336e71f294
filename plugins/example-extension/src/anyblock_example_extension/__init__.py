"""An AnyBlock extension: it adds an importance hook to every family, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.hookspecs import hookimpl

if TYPE_CHECKING:
    from anyblock.importance import ImportanceHook


class WandaExtension:
    """Contributes `WandaChannelContributionHook`."""

    @hookimpl
    def importance_hooks(self) -> dict[str, type[ImportanceHook]]:
        """See `FamilySpec.importance_hooks`."""
        # Imported here: AnyBlock loads extensions whenever it looks up a family, also where torch is not wanted.
        from anyblock_example_extension.wanda import WandaChannelContributionHook

        return {"WandaChannelContributionHook": WandaChannelContributionHook}
