"""The folder of a stage's tasks: what they are, what they share, their results and their logs.

Any process that sees the folder can compute a task of it, and only what lies in the folder counts as computed. Two processes that
compute one task write equal results.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from anyblock.checkpoint.atomic import write_bytes_atomic, write_json_atomic
from anyblock.contract.executor import Task
from anyblock.errors import InputError

SHARED = "let every worker see the run folder at the same path, or give another folder with --run"


def digest(data: Any) -> str:
    """Return the hash of JSON data; the order of keys does not matter."""
    return _hash(json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def worker_name() -> str:
    """Return what this process is called where results say who computed them."""
    return f"process {os.getpid()} on {socket.gethostname()}"


_HELD: dict[Path, object] = {}


class TaskFolder:
    """Reads and writes such a folder.

    Args:
        path: the folder; `prepare` makes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(
        self, plan: Mapping[str, Any], kind: str, wanted: Iterable[tuple[str, Mapping[str, Any]]]
    ) -> list[Task]:
        """Write tasks down, so that any process can compute them.

        Args:
            plan: JSON data that all of them share.
            kind: of all of them.
            wanted: title and arguments of each.
        """
        for name in ("plans", "results", "logs"):
            (self.path / name).mkdir(parents=True, exist_ok=True)
        shared = digest(plan)
        write_json_atomic(self.path / "plans" / f"{shared}.json", plan)
        tasks = [Task(digest([kind, arguments, shared]), kind, title, arguments, shared) for title, arguments in wanted]
        write_json_atomic(self.path / "tasks.json", [asdict(task) for task in tasks])
        return tasks

    @contextmanager
    def holding(self, context: object) -> Iterator[None]:
        """Within this scope, tasks of this folder that are computed in this process find what they compute with in `held`."""
        place = self.path.resolve()
        _HELD[place] = context
        try:
            yield
        finally:
            del _HELD[place]

    @property
    def held(self) -> Any:
        """See `holding`; None in a process in which the run itself is not."""
        return _HELD.get(self.path.resolve())

    def task(self, name: str) -> Task:
        """Return a task by its id.

        Raises:
            InputError: this process does not see the folder, or the task is not in it.
        """
        file = self.path / "tasks.json"
        try:
            found = _tasks(file, file.stat().st_mtime_ns)
        except OSError as error:
            raise InputError(f"{worker_name()} cannot read {file}: {error.strerror}", hint=SHARED) from error
        if name not in found:
            raise InputError(f"{file} has no task {name}", hint="start the run again")
        return found[name]

    def plan(self, task: Task) -> dict[str, Any]:
        """Return what a task shares with others.

        Raises:
            InputError: it cannot be read, or is not what the task was made with.
        """
        file = self.path / "plans" / f"{task.plan}.json"
        try:
            plan: dict[str, Any] = json.loads(file.read_bytes())
        except (OSError, ValueError) as error:
            raise InputError(f"{worker_name()} cannot read {file}: {error}", hint=SHARED) from error
        if digest(plan) != task.plan:
            raise InputError(f"{file} is damaged", expected="the content that its name is the hash of", hint=SHARED)
        return plan

    def finish(self, task: Task, result: bytes, seconds: float) -> None:
        """Keep a task's result, whole or not at all."""
        head = {"hash": _hash(result), "seconds": round(seconds, 3), "worker": worker_name()}
        write_bytes_atomic(self._result(task), json.dumps(head).encode() + b"\n" + result)

    def result(self, task: Task) -> bytes | None:
        """Return a task's result; None where there is none, or it is not what was written."""
        try:
            head, _, result = self._result(task).read_bytes().partition(b"\n")
            return result if json.loads(head)["hash"] == _hash(result) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def log(self, task: Task) -> Path:
        """Return where the log of a task's failed attempts lies."""
        return self.path / "logs" / f"{task.id}.txt"

    def _result(self, task: Task) -> Path:
        return self.path / "results" / task.id


@lru_cache(maxsize=8)
def _tasks(file: Path, _: int) -> dict[str, Task]:
    return {data["id"]: Task(**data) for data in json.loads(file.read_bytes())}
