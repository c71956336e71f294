"""Computing tasks with an executor: what is done stays done, and what fails is tried again, then reported."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import cast

from anyblock.contract.executor import Executor, Outcome, Task, Tasks
from anyblock.errors import ExecutionError, InputError, NotFiniteError, PluginError
from anyblock.execution.folder import SHARED, TaskFolder


def run_tasks(executor: Executor, folder: TaskFolder, tasks: Sequence[Task]) -> Iterator[tuple[Task, bytes]]:
    """Yield every task with its result: those that have one first, and the others as they come.

    Args:
        executor: where they are computed.
        folder: where they were prepared.
        tasks: what to compute.

    Raises:
        InputError, NotFiniteError: a task raised it; another attempt would as well.
        ExecutionError: tasks failed as often as the executor tries; all others are finished before that.
        PluginError: the executor left tasks out.
    """
    open_tasks = {}
    for task in tasks:
        result = folder.result(task)
        if result is None:
            open_tasks[task.id] = task
        else:
            yield task, result
    if not open_tasks:
        return
    waiting = deque(open_tasks.values())
    failures: Counter[str] = Counter()
    given_up: dict[str, Exception] = {}
    work = Tasks(folder.path, waiting, lambda task: folder.result(task) is not None)
    # A generator is closed when this one ends early, so that nothing is computed for a run that has failed.
    with closing(cast("Generator[Outcome]", iter(executor.submit(work)))) as outcomes:
        for outcome in outcomes:
            task, error = outcome.task, outcome.error
            result = folder.result(task)
            if result is not None:
                if open_tasks.pop(task.id, None) is not None:
                    yield task, result
                continue
            if isinstance(error, InputError | NotFiniteError):
                raise error
            failures[task.id] += 1
            if failures[task.id] < executor.attempts:
                waiting.append(task)
            else:
                given_up[task.id] = error or ExecutionError(f"no whole result in {folder.path}", hint=SHARED)
    if given_up:
        raise _failed(executor, folder, [open_tasks[name] for name in given_up], given_up, len(tasks))
    if open_tasks:
        raise PluginError(
            f"the executor {type(executor).__name__} ended with {len(open_tasks)} of {len(tasks)} tasks not computed",
            expected="an outcome of every task",
        )


def _failed(
    executor: Executor, folder: TaskFolder, failed: Sequence[Task], errors: dict[str, Exception], total: int
) -> Exception:
    first = failed[0]
    error, log = errors[first.id], folder.log(first)
    names = ", ".join(task.title for task in failed[:5]) + (", ..." if len(failed) > 5 else "")
    last = log.read_text(encoding="utf-8", errors="replace").strip() if log.is_file() else ""
    return ExecutionError(
        f"{len(failed)} of {total} tasks failed {executor.attempts} times: {names}; the first with: {error}"
        + (f"\nlog {log} ends with:\n{last[-2000:]}" if last else ""),
        hint="the results of the other tasks are kept; mend the cause and start the run again",
    )
