"""The run folder: stages whose results are kept, checked by content, and continued where they stopped."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

from filelock import FileLock, Timeout

from anyblock.checkpoint.atomic import write_json_atomic
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.errors import AnyBlockError, ConfigError, InputError
from anyblock.execution.folder import digest as digest
from anyblock.modeling.process_memory import give_back, peak_memory, reset_peak_memory
from anyblock.progress import SILENT

STAGES: Final = (
    "candidates",
    "data",
    "teacher",
    "measured-costs",
    "importance",
    "hidden-size",
    "scores",
    "search",
    "refine",
    "adaptations",
    "child",
    "measured-check",
    "evaluation",
    "evaluations",
)
"""Every stage, in the order in which data passes through them; the number of a stage's folder is its place here.

A stage that plugins can add to runs once per name, as `GROUP:NAME`, for instance `adaptations:repair`.
"""
_INPUTS: Final = "inputs.json"
_DONE: Final = "stage.json"
_HOLDER: Final = ".holder.json"


def file_digest(path: Path) -> str:
    """Return a content hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def fingerprint_of(path: Path) -> str | None:
    """Return the content hash of the subblock checkpoint at `path`; None when there is none that can be read."""
    if not path.is_dir():
        return None
    try:
        return SubblockCheckpoint.open(path).fingerprint()
    except AnyBlockError:
        return None


def read_json(path: Path) -> Any:
    """Read a JSON file of a run.

    Raises:
        ConfigError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}",
            expected="a file that a run of `anyblock compress` wrote",
            hint="start the run again; finished stages are kept",
        ) from error


class Stage:
    """One stage's folder.

    A finished stage has a `stage.json` that names its inputs and the content of its files. Partial results of an
    unfinished stage with the same inputs are kept, so that it can go on; anything else is cleared.

    Args:
        name: one of `STAGES`, or `GROUP:NAME`.
        folder: the stage's folder in the run.
        inputs: everything the result depends on, as JSON data.
        run: the folder it belongs to.

    Attributes:
        figures: what it measured (`kl`, in nats per token, and the `text`), for whoever follows the run.
    """

    def __init__(self, name: str, folder: Path, inputs: Mapping[str, Any], run: RunFolder) -> None:
        self.name = name
        self.folder = folder
        self._run = run
        self.figures: dict[str, Any] = {}
        self.fingerprint = digest(inputs)
        self.inputs = dict(inputs)
        self.skipped = self._finished()

    def _finished(self) -> bool:
        done = self.folder / _DONE
        if not done.is_file():
            return False
        state = read_json(done)
        if state.get("fingerprint") != self.fingerprint:
            return False
        files: dict[str, str] = state.get("files", {})
        return all(
            (self.folder / name).is_file() and file_digest(self.folder / name) == hashed
            for name, hashed in files.items()
        )

    def _continues(self) -> bool:
        """Return whether there are partial results of the same inputs; a finished stage that was damaged has none."""
        inputs = self.folder / _INPUTS
        if not inputs.is_file() or (self.folder / _DONE).exists():
            return False
        return bool(read_json(inputs).get("fingerprint") == self.fingerprint)

    @contextmanager
    def run(self) -> Iterator[Path]:
        """Give the folder to work in; on a clean exit the stage is finished.

        A file or folder whose name starts with `.` is scratch: it is deleted when the stage is finished.
        """
        if not self._continues():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            write_json_atomic(self.folder / _INPUTS, {"fingerprint": self.fingerprint, "inputs": self.inputs})
        self._run.ran.add(self.name)
        self._run.progress.emit("stage", stage=self.name, state="started")
        begin = time.monotonic()
        give_back()  # what the stage before freed
        reset_peak_memory()
        yield self.folder
        memory = peak_memory()
        seconds = round(time.monotonic() - begin, 3)
        for scratch in self.folder.glob(".*"):
            shutil.rmtree(scratch) if scratch.is_dir() else scratch.unlink()
        names = sorted(path.name for path in self.folder.iterdir() if path.is_file() and path.name != _INPUTS)
        files = {name: file_digest(self.folder / name) for name in names}
        write_json_atomic(
            self.folder / _DONE,
            {"fingerprint": self.fingerprint, "files": files, "seconds": seconds, "peak_memory": memory},
        )
        self._run.progress.emit("stage", stage=self.name, state="done", seconds=seconds, memory=memory, **self.figures)


class RunFolder:
    """A run's folder, held by one process at a time.

    Args:
        path: the folder; made when it is missing.

    Attributes:
        ran: the names of stages that this process worked on.
        used: the names of stages that this process asked for, in order, finished before or not.
        progress: where stages report.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ran: set[str] = set()
        self.used: list[str] = []
        self.progress = SILENT

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an existing run for reading.

        Raises:
            InputError: there is no run.
        """
        if not (path / "run.yaml").is_file():
            raise InputError(
                f"{path} is not a run folder",
                expected="a folder with run.yaml, as `anyblock compress` leaves it next to the child",
            )
        return cls(path)

    def folder(self, stage: str) -> Path:
        """Return where a stage of `STAGES` keeps its files."""
        group, _, name = stage.partition(":")
        return self.path / "stages" / f"{STAGES.index(group):02}-{name or group}"

    def is_finished(self, stage: str) -> bool:
        """Return whether the stage has a result."""
        return (self.folder(stage) / _DONE).is_file()

    def done(self, stage: str) -> dict[str, Any]:
        """Return what a finished stage says of itself: its files, seconds, and peak memory in bytes."""
        found: dict[str, Any] = read_json(self.folder(stage) / _DONE)
        return found

    def stage(self, name: str, inputs: Mapping[str, Any]) -> Stage:
        """Return a stage by name; `skipped` says whether its result is there already."""
        self.used.append(name)
        stage = Stage(name, self.folder(name), inputs, self)
        if stage.skipped:
            self.progress.emit("stage", stage=name, state="reused")
        return stage

    def result(self, stage: str, name: str) -> Path:
        """Return the path of a finished stage's file.

        Raises:
            InputError: the stage is not finished.
        """
        if not self.is_finished(stage):
            raise self.unfinished(f"the stage {stage!r} is not finished")
        return self.folder(stage) / name

    def unfinished(self, what: str) -> InputError:
        """Return an error for a run that has not got far enough, which says who works on it, if anybody does."""
        holder = self.holder()
        return InputError(
            f"{self.path}: {what}" + (f"; in use by {holder}" if holder else ""),
            hint="wait until that run is done" if holder else "run `anyblock compress` to the end first",
        )

    def inputs(self, stage: str) -> dict[str, Any]:
        """Return what a stage's result depends on.

        Raises:
            ConfigError: it is missing or damaged.
        """
        inputs: dict[str, Any] = read_json(self.folder(stage) / _INPUTS)["inputs"]
        return inputs

    def holder(self) -> str | None:
        """Return who holds the run as its note says: user, process, host, and for how long; None without a note."""
        try:
            data = json.loads((self.path / _HOLDER).read_text())
            minutes = (time.time() - data["since"]) / 60
            return f"{data['name']}, process {data['pid']} on {data['host']}, for {minutes:.1f} minutes"
        except (OSError, ValueError, KeyError):
            return None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process.

        Raises:
            InputError: another process holds it; the message names that process and how long it has.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        holder = self.path / _HOLDER
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(
                f"{self.path} is in use by {self.holder() or 'another process'}",
                expected="one process on a run at a time",
                hint="wait for it, end it, or give another folder with --run",
            ) from error
        try:
            write_json_atomic(
                holder, {"name": _user(), "pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
            )
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no name belongs to the user id, as in some containers
        return str(os.getuid())
