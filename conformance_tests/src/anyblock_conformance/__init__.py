"""The shared conformance suite for AnyBlock family adapters.

`run_conformance` runs it from Python, `anyblock conformance` from a shell, and `anyblock_conformance.pytest` in an
adapter's own tests; the checks, their ids and their results are the same.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anyblock_conformance.run import run_checkpoint, run_conformance

__version__ = version("anyblock-conformance")
__all__ = ["__version__", "run_checkpoint", "run_conformance"]


def __getattr__(name: str) -> Any:
    # torch is imported only when checks are run: comparing two reports needs none.
    if name in ("run_conformance", "run_checkpoint"):
        from anyblock_conformance import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
