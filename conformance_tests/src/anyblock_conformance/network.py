"""Noticing whether anything reaches for the network."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

_LOCAL: Final = {socket.AF_UNIX} if hasattr(socket, "AF_UNIX") else set()


@contextmanager
def no_network() -> Iterator[list[str]]:
    """Within this scope this thread cannot reach the network; yields a list of what was tried.

    Connections and name look-ups fail with `OSError`, as they do without a network, and are recorded, so that code which
    falls back in silence is seen as well. Unix sockets work.
    """
    tried: list[str] = []
    thread = threading.get_ident()
    look_up, connect, connect_ex = socket.getaddrinfo, socket.socket.connect, socket.socket.connect_ex

    def refuse(what: str) -> NoReturn:
        tried.append(what)
        raise OSError(f"the conformance suite has no network: {what}")

    def guarded_look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != thread:
            return look_up(host, *args, **kwargs)
        refuse(f"look-up of {host}")

    def guarded_connect(self: socket.socket, address: Any) -> None:
        """Connect on this machine, and refuse the rest."""
        if threading.get_ident() != thread or self.family in _LOCAL:
            connect(self, address)
            return
        refuse(f"connection to {address}")

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        """Connect on this machine, and refuse the rest."""
        if threading.get_ident() != thread or self.family in _LOCAL:
            return connect_ex(self, address)
        refuse(f"connection to {address}")

    socket.getaddrinfo = guarded_look_up
    socket.socket.connect = guarded_connect  # type: ignore[method-assign,assignment]
    socket.socket.connect_ex = guarded_connect_ex  # type: ignore[method-assign,assignment]
    try:
        yield tried
    finally:
        socket.getaddrinfo = look_up
        socket.socket.connect = connect  # type: ignore[method-assign]
        socket.socket.connect_ex = connect_ex  # type: ignore[method-assign]
