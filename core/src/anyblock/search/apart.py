"""Run a search in a thread of its own.

HiGHS keeps one scheduler a thread, and refuses to run where another part of the program has started it with another number
of threads; a fresh thread has a fresh scheduler. The calling thread stays free to receive Ctrl-C meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")


def run_apart(work: Callable[[threading.Event], _T]) -> _T:
    """Return `work(stop)`, run in a fresh thread; its exception is raised here.

    When the calling thread is interrupted, `stop` is set, and the interrupt is raised again once `work` has returned.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="anyblock-search") as pool:
        try:
            return pool.submit(work, stop).result()
        except BaseException:
            stop.set()
            raise
