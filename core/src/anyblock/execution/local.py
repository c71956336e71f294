"""The executor `local`: tasks are computed in this process, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from anyblock.contract.executor import Executor, Outcome, Tasks
from anyblock.contract.services import services


class LocalExecutor(Executor):
    """Computes tasks in this process; the first error ends the run."""

    summary: ClassVar[str] = "computes tasks in this process, one after the other"
    attempts: ClassVar[int] = 1

    def submit(self, tasks: Tasks) -> Iterator[Outcome]:
        """See `Executor.submit`."""
        while tasks.waiting:
            task = tasks.waiting.popleft()
            services().run_task(tasks.folder, task.id)
            yield Outcome(task)
