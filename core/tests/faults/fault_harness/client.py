"""The side of the tests: starts the warm process, sends faults, and reads what happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SERVER = Path(__file__).with_name("server.py")


@dataclass(frozen=True)
class Outcome:
    """What became of a victim: its exit code (negative for a signal), and what it said."""

    code: int
    hung: bool
    seconds: float
    grown: int
    stdout: str
    stderr: str
    told: list[Any] = field(default_factory=list)

    @property
    def crashed(self) -> bool:
        """A defect showed: a traceback, an internal error, or a signal."""
        return "Traceback" in self.stderr or "internal error" in self.stderr or self.code < 0 or self.code == 70


class Warm:
    """A process in which everything is imported; each request is served by a fork of it."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.folder = folder
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "NO_COLOR": "1"}
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
            **request: `fault` (of `seam.Seam`) with `root`; `limits` (`{"FSIZE": bytes}`); `user` to become;
                `prepare` (a function of `calls` with its `arguments`); `kill_after` seconds, with `signal`; `timeout`;
                `spy`.
        """
        assert self.process.stdin is not None
        request |= {"folder": str(self.folder)} | ({} if argv is None else {"argv": [str(part) for part in argv]})
        self.process.stdin.write(json.dumps(request, default=str) + "\n")
        self.process.stdin.flush()
        answer = self._read()
        text = {name: (self.folder / name).read_text(errors="replace") for name in ("stdout", "stderr", "told")}
        told = [json.loads(line) for line in text.pop("told").splitlines()]
        return Outcome(**answer, **text, told=told)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)
