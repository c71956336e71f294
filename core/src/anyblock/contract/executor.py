"""`Executor`: where the tasks of a run are computed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from anyblock.contract.settings import Configured

if TYPE_CHECKING:
    from anyblock.progress import Progress


@dataclass(frozen=True)
class Task:
    """A piece of work that depends on nothing but what it names: equal tasks have equal results. Since 0.2.

    Attributes:
        id: a hash of everything below but the title.
        kind: which of core's functions computes it.
        title: what a person reads on a dashboard or in an error, for instance `scores of layer 3 (12 candidates)`.
        arguments: JSON data.
        plan: the hash of what the tasks of a stage share: versions, paths and hashes of their inputs.
    """

    id: str
    kind: str
    title: str
    arguments: Mapping[str, Any]
    plan: str


@dataclass(frozen=True)
class Outcome:
    """How one attempt at a task ended. Since 0.2.

    Attributes:
        task: which one.
        error: why there is no result; None where there is one.
    """

    task: Task
    error: Exception | None = None


@dataclass(frozen=True)
class Needs:
    """What a run asks of the place where its tasks are computed. Since 0.2.

    Attributes:
        run: the run folder; every worker has to see it at this path.
        distributions: `{distribution: version}` of what computes and of the plugins in use; workers need the same.
        device: `cpu`, `cuda`, ...: where a task computes.
        threads: of one task, on any worker; the last bits of a product can depend on their number.
        progress: where to report.
    """

    run: Path
    distributions: Mapping[str, str]
    device: str
    threads: int
    progress: Progress


@dataclass(frozen=True)
class Tasks:
    """The tasks of one stage that have no result yet. Since 0.2.

    Attributes:
        folder: where tasks, results and logs are kept.
        waiting: take tasks from its left end. A task whose attempt failed may come back to it as soon as its outcome has
            been yielded, so look again before you return.
        finished: whether a task's result lies in the folder, whole.
    """

    folder: Path
    waiting: deque[Task]
    finished: Callable[[Task], bool]


class Executor(Configured, ABC):
    """A place where tasks are computed. Since 0.2.

    A run uses it where `execution.engine` names it. Whatever carries a task to a worker, the worker calls
    `anyblock.contract.services.services().run_task(folder, id)`, or runs `python -m anyblock.execution FOLDER ID`; both write the
    result into the folder, which is the only place that counts.

    Class attributes:
        summary: one line.
        settings: the section of the configuration that stands under `execution.NAME`; `self.settings_given` holds it.
        attempts: how often a task is tried before the run gives it up.
    """

    summary: ClassVar[str]
    attempts: ClassVar[int] = 3

    def open(self, needs: Needs) -> None:
        """Get ready, before the run computes or writes anything.

        Raises:
            InputError: the place cannot be reached, or is not as the run needs it; the message says what to do.
        """
        return  # an executor that needs nothing beforehand does not override this

    @abstractmethod
    def submit(self, tasks: Tasks) -> Iterator[Outcome]:
        """Compute tasks until none waits, and yield the outcome of every attempt as it comes, in any order."""

    def close(self) -> None:
        """Let go of whatever `open` and `submit` hold, also after an error."""
        return
