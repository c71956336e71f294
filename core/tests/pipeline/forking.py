"""A process that imports AnyBlock once and runs each command line that it reads in a fork, which it kills where it is told.

A request is one line of JSON: `arguments` of the command line, and `number` and `pattern`: the fork dies of SIGKILL before its
n-th change of the file system whose path the pattern finds (an empty pattern: never). The answer is the exit code, negative
for a signal. An audit hook of the interpreter tells the changes, so that nothing of the product knows of this.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from typing import Any

import torch
from anyblock import cli, load_model  # noqa: F401 - imported once, for every fork
from anyblock.pipeline.compress import compress  # noqa: F401

CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir")


def die_at(pattern: str, number: int) -> None:
    """Kill this process before the n-th matching change."""
    left = number

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if opened or event in CHANGES:
            paths = [os.fsdecode(part) for part in arguments if isinstance(part, str | bytes | os.PathLike)]
            left -= any(re.search(pattern, path) for path in paths)
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def main() -> None:
    """Serve requests until there are no more."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                os.dup2(2, 1)
                if request["pattern"]:
                    die_at(request["pattern"], request["number"])
                code = cli._run(request["arguments"])
            except SystemExit as end:
                code = int(end.code or 0)
            finally:
                os._exit(code)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
