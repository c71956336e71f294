"""`events.jsonl` in the run folder: what a run does while it does it, one JSON object per line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anyblock.progress import Event, Events, Progress
from anyblock.version import VERSION


@contextmanager
def recorded(path: Path, shown: Progress) -> Iterator[Events]:
    """Return a progress that appends every event to a file, also that the run begins and how it ends, and passes it on.

    Args:
        path: the file; its last line may be torn, where an earlier process was killed.
        shown: where the run reports as well.
    """
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            file.write(b"" if file.read() == b"\n" else b"\n")

        def append(event: Event) -> None:
            """Write one line."""
            plain = {key: round(value, 4) if isinstance(value, float) else value for key, value in event.items()}
            file.write(json.dumps(plain).encode() + b"\n")
            file.flush()

        events = Events(append, shown)
        events.emit("run", version=VERSION, pid=os.getpid())
        try:
            yield events
        except BaseException as error:
            failed = isinstance(error, Exception)
            events.emit("end", state="failed" if failed else "stopped", error=str(error) if failed else "")
            raise
        events.emit("end", state="done")
