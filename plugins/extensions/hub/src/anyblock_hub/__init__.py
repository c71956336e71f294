"""Children on the Hugging Face hub: `push_child` uploads one with a model card, as `anyblock push` does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anyblock_hub.push import push_child

__all__ = ["push_child"]


def __getattr__(name: str) -> Any:
    if name == "push_child":
        from anyblock_hub.push import push_child

        return push_child
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
