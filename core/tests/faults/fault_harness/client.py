"""The side of the tests: starts the warm process, sends faults, and reads what happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SERVER = Path(__file__).with_name("server.py")


@dataclass(frozen=True)
class Outcome:
    """What became of a victim: its exit code (negative for a signal), and what it said; times are in seconds."""

    code: int
    hung: bool
    seconds: float
    processor: float
    grown: int
    stdout: str
    stderr: str
    told: list[Any] = field(default_factory=list)

    @property
    def crashed(self) -> bool:
        """A defect showed: a traceback, an internal error, or a signal."""
        return "Traceback" in self.stderr or "internal error" in self.stderr or self.code < 0 or self.code == 70


@dataclass(frozen=True)
class Background:
    """A victim that runs on its own."""

    warm: Warm
    pid: int
    folder: Path

    def reached(self, seconds: float = 300.0) -> Any:
        """Wait until it tells something, and return that."""
        told = self.folder / "told"
        end = time.monotonic() + seconds
        while not (told.is_file() and told.read_text().endswith("\n")):
            assert time.monotonic() < end, (self.folder / "stderr").read_text()
            time.sleep(0.01)
        return json.loads(told.read_text().splitlines()[0])

    def join(self, **request: Any) -> Outcome:
        """Wait for its end; `request` is `timeout`, or `kill_after` with `signal`."""
        return self.warm._outcome(self.warm._ask({"join": self.pid, **request}), self.folder)


class Warm:
    """A process in which everything is imported; each request is served by a fork of it."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.folder = folder
        self._started = 0
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "NO_COLOR": "1"}
        # Large blocks come from the system each time and go back to it, so that a limit on memory is met where it is set.
        environment["MALLOC_MMAP_THRESHOLD_"] = str(1 << 16)
        (folder / "warm").mkdir()
        self.process = subprocess.Popen(
            [sys.executable, str(SERVER), str(model), str(folder / "warm")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        ready = self._read()
        self.size, self.rss = ready["size"], ready["rss"]

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the warm process died"
        return dict(json.loads(line))

    def run(self, argv: Sequence[str | Path] | None = None, **request: Any) -> Outcome:
        """Fork a victim.

        Args:
            argv: the command line; or `call` names a function of `calls`, with `arguments`.
            **request: `fault` (of `seam.Seam`) with `root`; `limits` (`{"FSIZE": bytes}`); `more`, the bytes of memory that it
                may take beyond what it has; `user` to become;
                `prepare` (a function of `calls` with its `arguments`); `kill_after` seconds, with `signal`; `timeout`;
                `spy`.
        """
        request |= {"folder": str(self.folder)} | ({} if argv is None else {"argv": [str(part) for part in argv]})
        return self._outcome(self._ask(request), self.folder)

    def start(self, argv: Sequence[str | Path], **request: Any) -> Background:
        """Fork a victim and go on while it runs; `request` is as for `run`."""
        self._started += 1
        folder = self.folder / f"background-{self._started}"
        request |= {"folder": str(folder), "argv": [str(part) for part in argv], "background": True}
        return Background(self, self._ask(request)["pid"], folder)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request, default=str) + "\n")
        self.process.stdin.flush()
        return self._read()

    def _outcome(self, answer: dict[str, Any], folder: Path) -> Outcome:
        text = {name: (folder / name).read_text(errors="replace") for name in ("stdout", "stderr", "told")}
        told = [json.loads(line) for line in text.pop("told").splitlines()]
        return Outcome(**answer, **text, told=told)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)
