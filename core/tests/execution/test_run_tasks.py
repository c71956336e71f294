"""Tasks in a folder: what is tried again, what is given up, what is refused, and what counts as a result."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from anyblock.contract.executor import Executor, Outcome, Task, Tasks
from anyblock.errors import ExecutionError, InputError, NotFiniteError, PluginError
from anyblock.execution.folder import TaskFolder
from anyblock.execution.run import run_tasks
from anyblock.pipeline.run_task import run_task

PLAN = {"distributions": {"anyblock": "0.0.1", "anyblock-unheard-of": "3"}, "threads": 1}


@pytest.fixture
def folder(tmp_path: Path) -> TaskFolder:
    return TaskFolder(tmp_path / ".tasks")


def prepared(folder: TaskFolder, count: int = 4) -> list[Task]:
    return folder.prepare(PLAN, "scores", [(f"task {number}", {"layer": number}) for number in range(count)])


class Trying(Executor):
    """Hands each attempt to a function, which returns a result, or None for a worker that is gone, or raises."""

    def __init__(self, folder: TaskFolder, attempt: Callable[[Task, int], bytes | None]) -> None:
        super().__init__()
        self.folder, self.attempt = folder, attempt
        self.tried: Counter[str] = Counter()
        self.closed = False

    def submit(self, tasks: Tasks) -> Iterator[Outcome]:
        try:
            while tasks.waiting:
                task = tasks.waiting.popleft()
                self.tried[task.title] += 1
                try:
                    result = self.attempt(task, self.tried[task.title])
                except Exception as error:  # noqa: BLE001
                    yield Outcome(task, error)
                    continue
                if result is not None:
                    self.folder.finish(task, result, 0.0)
                yield Outcome(task)
        finally:
            self.closed = True


def test_a_task_is_tried_again_and_results_come_with_their_tasks(folder: TaskFolder) -> None:
    tasks = prepared(folder)
    executor = Trying(folder, lambda task, attempt: None if attempt < 3 and task is tasks[1] else task.title.encode())
    found = {task.title: result for task, result in run_tasks(executor, folder, tasks)}
    assert found == {task.title: task.title.encode() for task in tasks}
    assert executor.tried == {"task 0": 1, "task 1": 3, "task 2": 1, "task 3": 1}


def test_what_has_a_whole_result_is_not_computed_again(folder: TaskFolder) -> None:
    tasks = prepared(folder)
    list(run_tasks(Trying(folder, lambda task, _: b"[1.5]"), folder, tasks))
    (folder.path / "results" / tasks[2].id).write_bytes(b'{"hash": "0"}\n[1.5]')
    again = Trying(folder, lambda task, _: b"[1.5]")
    assert [result for _, result in run_tasks(again, folder, prepared(folder))] == [b"[1.5]"] * 4
    assert again.tried == {"task 2": 1}


def test_a_task_that_fails_three_times_is_reported_with_its_log_and_the_others_are_finished(folder: TaskFolder) -> None:
    def attempt(task: Task, _: int) -> bytes:
        if task.title == "task 1":
            folder.log(task).write_text("the worker's last words")
            raise RuntimeError("lost")
        return b"{}"

    executor = Trying(folder, attempt)
    with pytest.raises(
        ExecutionError, match=r"(?s)1 of 4 tasks failed 3 times: task 1.*lost.*the worker's last words"
    ) as found:
        list(run_tasks(executor, folder, prepared(folder)))
    assert "start the run again" in found.value.hint
    assert executor.tried == {"task 0": 1, "task 1": 3, "task 2": 1, "task 3": 1}


@pytest.mark.parametrize("kind", [InputError, NotFiniteError])
def test_what_no_further_attempt_would_change_ends_the_run_at_once(folder: TaskFolder, kind: type[Exception]) -> None:
    def attempt(task: Task, _: int) -> bytes:
        raise kind("as it is")

    executor = Trying(folder, attempt)
    with pytest.raises(kind, match="as it is"):
        list(run_tasks(executor, folder, prepared(folder)))
    assert executor.tried == {"task 0": 1}
    assert executor.closed


def test_an_executor_that_leaves_tasks_out_is_at_fault(folder: TaskFolder) -> None:
    class Lazy(Executor):
        def submit(self, tasks: Tasks) -> Iterator[Outcome]:
            yield from ()

    with pytest.raises(PluginError, match="Lazy ended with 4 of 4 tasks not computed"):
        list(run_tasks(Lazy(), folder, prepared(folder)))


def test_ids_are_of_the_content_alone(folder: TaskFolder, tmp_path: Path) -> None:
    first = prepared(folder)
    assert [task.id for task in prepared(TaskFolder(tmp_path / "other"))] == [task.id for task in first]
    (other,) = folder.prepare({**PLAN, "threads": 2}, "scores", [("task 0", {"layer": 0})])
    assert other.id != first[0].id


def test_another_version_is_refused_by_name(folder: TaskFolder) -> None:
    task = prepared(folder)[0]
    with pytest.raises(
        InputError, match=r"anyblock is .*, and the run has 0\.0\.1; anyblock-unheard-of 3 is not installed"
    ):
        run_task(folder.path, task.id)
    assert "anyblock-unheard-of" in folder.log(task).read_text()
    assert folder.result(task) is None


def test_a_folder_that_is_not_shared_is_one_message_and_exit_code_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "anyblock.execution", str(tmp_path / "elsewhere"), "0"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "let every worker see the run folder at the same path" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_damaged_plan_is_refused(folder: TaskFolder) -> None:
    task = prepared(folder)[0]
    (file,) = (folder.path / "plans").iterdir()
    file.write_text(file.read_text().replace("0.0.1", "0.2.0"))
    with pytest.raises(InputError, match="is damaged"):
        run_task(folder.path, task.id)
