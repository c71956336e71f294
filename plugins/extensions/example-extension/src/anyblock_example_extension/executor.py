"""An executor: another interpreter on this machine computes the tasks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import ClassVar

from anyblock.contract.executor import Executor, Outcome, Tasks
from anyblock.contract.settings import Positive, Section
from anyblock.errors import ExecutionError
from pydantic import Field


class ChildProcessSettings(Section):
    """Settings of the executor `child-process`."""

    tasks: Positive = Field(
        default=16, description="Tasks that one interpreter computes, at most, before the next starts."
    )


class ChildProcess(Executor):
    """Hands tasks to a child process, so that what they hold in memory is gone when it ends."""

    summary: ClassVar[str] = "computes tasks in a child process, which gives all of its memory back"
    settings: ClassVar[type[Section]] = ChildProcessSettings

    def submit(self, tasks: Tasks) -> Iterator[Outcome]:
        """See `Executor.submit`."""
        while tasks.waiting:
            count = min(self.settings_given.tasks, len(tasks.waiting))
            mine = [tasks.waiting.popleft() for _ in range(count)]
            command = [sys.executable, "-m", "anyblock.execution", str(tasks.folder), *(task.id for task in mine)]
            ended = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
            for number, task in enumerate(mine):
                if tasks.finished(task):
                    yield Outcome(task)
                    continue
                yield Outcome(
                    task, ExecutionError(ended.stderr.strip() or f"a child process ended with {ended.returncode}")
                )
                tasks.waiting.extend(mine[number + 1 :])  # these were not begun
                break
