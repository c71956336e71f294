"""What runs in a job."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anyblock.contract.services import services
from anyblock.errors import AnyBlockError, ExecutionError


class ComputeTasks:
    """Computes tasks one after the other; submitit queues it again where the job reached its time limit or was preempted."""

    def __call__(self, folder: str, tasks: Sequence[str]) -> dict[str, Exception]:
        """Return what the tasks that failed raised, by id; the others have their results in the folder."""
        raised: dict[str, Exception] = {}
        for task in tasks:
            try:
                services().run_task(Path(folder), task)
            except AnyBlockError as error:
                raised[task] = error
            except Exception as error:  # noqa: BLE001  one task's failure is not that of the others
                raised[task] = ExecutionError(f"{type(error).__name__}: {error}")
        return raised

    def checkpoint(self, folder: str, tasks: Sequence[str]) -> Any:
        """Return what is queued again; tasks that have a result are passed over then."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, folder, tasks)
