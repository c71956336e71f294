"""Points at which a process changes the file system, numbered, and faults injected at one of them.

Nothing of the product knows about this: an audit hook of the interpreter reports every `open` for writing, rename, removal and
new directory, and the calls that move bytes (`os.pwrite`, `os.fsync`, `os.copy_file_range`, `os.sendfile`, safetensors' own
writer) are wrapped, and so are the requests to a hub, which change what is there; all in a forked child that is about to die. So
no data and no environment can trigger it in a real process.
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}


class Seam:
    """Counts the changes that this process makes below a folder, and does something at one of them.

    Args:
        root: changes elsewhere (caches of bytecode and the like) do not count.
        mode: `record` only counts; `before` kills before the change; `torn` kills in the middle of it; `after`, of a request,
            kills when the hub has answered; `error` raises an `OSError` instead of it; `hold` waits before it until the file
            `release` is there.
        at: the number of the change, from 1.
        code: the `errno` of mode `error`.
        match: only changes whose description this pattern finds count.
        release: see mode `hold`.
        sticky: mode `error` fails every further change too, as a full disk does.
        tell: given the events, or the one at which the process is about to die.
    """

    def __init__(
        self,
        root: Path,
        mode: str,
        at: int,
        tell: Callable[[Any], None],
        *,
        code: int = errno.EIO,
        match: str = "",
        sticky: bool = False,
        release: str = "",
    ) -> None:
        self.root, self.mode, self.at, self.tell = str(root), mode, at, tell
        self.release = Path(release)
        self.code, self.match, self.sticky = code, re.compile(match), sticky
        self.events: list[str] = []
        self.guard = threading.RLock()
        self.busy = False

    def install(self) -> None:
        import safetensors.torch as library

        for name in ("pwrite", "fsync", "copy_file_range", "sendfile"):
            setattr(os, name, self._wrapped(name, getattr(os, name)))
        library.serialize_file = self._serialised(library.serialize_file)
        from huggingface_hub.utils import get_session

        client = type(get_session())  # httpx's or httpx2's own
        client.send = self._sent(client.send)
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, int) or not isinstance(flags, int) or not flags & WRITES:
                return
            self._reached("open", path, lambda: os.close(os.open(path, flags, 0o666)))
        elif event in CHANGES:
            # What stands in the middle of a rename or removal is the state before it.
            self._reached(event, arguments[0], lambda: None)

    def _reached(
        self, what: str, path: Any, partly: Callable[[], Any], wholly: Callable[[], Any] = lambda: None
    ) -> None:
        text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else str(path)
        if text.startswith("/") and not text.startswith(self.root):
            return
        with self.guard:
            event = f"{what} {text.removeprefix(self.root)}"
            if self.busy or not self.match.search(event):
                return
            self.events.append(event)
            number = len(self.events)
            hit = number == self.at or (self.sticky and number > self.at)
            if self.mode == "record" or not hit:
                return
            if self.mode == "error":
                if what in ("os.remove", "os.rmdir"):
                    return  # a full disk still lets go
                raise OSError(self.code, os.strerror(self.code), text)
            if self.mode == "hold":
                self.tell(event)
                while not self.release.exists():
                    time.sleep(0.01)
                return
            self.busy = True
            self.tell(self.events[-1])
            if self.mode in ("torn", "after"):
                with suppress(OSError):
                    (partly if self.mode == "torn" else wholly)()
            os.kill(os.getpid(), signal.SIGKILL)

    def _wrapped(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            # os.sendfile and os.pwrite name the target first, os.copy_file_range second.
            target = arguments[1] if name == "copy_file_range" else arguments[0]

            def partly() -> None:
                if name == "fsync":
                    os.ftruncate(target, os.fstat(target).st_size // 2)
                elif name == "pwrite":
                    data = memoryview(arguments[1]).cast("B")
                    original(target, data[: len(data) // 2], arguments[2])
                elif name == "copy_file_range":
                    original(arguments[0], target, arguments[2] // 2, *arguments[3:])
                else:
                    original(target, arguments[1], arguments[2], arguments[3] // 2)

            self._reached(name, Path(f"/proc/self/fd/{target}").readlink(), partly)
            return original(*arguments, **keywords)

        return call

    def _sent(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(client: Any, request: Any, **keywords: Any) -> Any:
            def wholly() -> Any:
                return original(client, request, **keywords)

            self._reached(f"request {request.method}", str(request.url), lambda: half_sent(request), wholly)
            return wholly()

        return call

    def _serialised(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(tensors: Any, filename: Any, *rest: Any, **keywords: Any) -> Any:
            def partly() -> None:
                original(tensors, filename, *rest, **keywords)
                os.truncate(filename, os.stat(filename).st_size // 2)  # noqa: PTH116

            self._reached("safetensors", filename, partly)
            return original(tensors, filename, *rest, **keywords)

        return call


def half_sent(request: Any) -> None:
    """Send a request's head, which states the length of the whole body, and half of the body."""
    body = b"".join(request.stream)
    head = [
        f"{request.method} {request.url.raw_path.decode()} HTTP/1.1",
        *(f"{k}: {v}" for k, v in request.headers.items()),
    ]
    with socket.create_connection((request.url.host, request.url.port)) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode() + body[: len(body) // 2])


def teller(descriptor: int) -> Callable[[Any], None]:
    """Return a function that writes a line of JSON, in one call, to an open file."""
    write = os.write

    def tell(data: Any) -> None:
        write(descriptor, (json.dumps(data) + "\n").encode())

    return tell
