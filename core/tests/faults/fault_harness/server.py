"""The warm process: everything is imported once, then one fork a request runs the command line and meets its fault.

Requests and answers are lines of JSON; see `client.Warm.run`.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

import calls
from seam import Seam, teller


def main() -> None:
    calls.warm_up(Path(sys.argv[1]), Path(sys.argv[2]))
    gc.collect()
    gc.freeze()  # a fork that collects garbage would otherwise copy every page
    print(json.dumps({"ready": True, "size": status("VmSize"), "rss": status("VmRSS")}), flush=True)
    started: dict[int, Any] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "join" in request:
            answer = wait(request, *started.pop(request["join"]))
        else:
            pid, begin, before = start(request)
            if request.get("background"):
                started[pid] = (pid, begin, before)
                answer = {"pid": pid}
            else:
                answer = wait(request, pid, begin, before)
        print(json.dumps(answer), flush=True)


def status(key: str) -> int:
    """A value of /proc/self/status in bytes."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{key}:")[1].split()[0]) * 1024


def start(request: dict[str, Any]) -> tuple[int, float, int]:
    """Fork a victim; returns its pid, and when and how large it began."""
    folder = Path(request["folder"])
    folder.mkdir(exist_ok=True)
    for name in ("told", "stdout", "stderr"):
        (folder / name).unlink(missing_ok=True)
    begin, before = time.monotonic(), status("VmRSS")
    pid = os.fork()
    if pid == 0:
        victim(request, folder)
    return pid, begin, before


def wait(request: dict[str, Any], pid: int, begin: float, before: int) -> dict[str, Any]:
    """Wait for a victim, or end it when it is time."""
    timeout, wanted = request.get("timeout", 120.0), request.get("kill_after")
    descriptor = os.pidfd_open(pid)
    hung = False
    ready, _, _ = select.select([descriptor], [], [], timeout if wanted is None else wanted)
    if not ready:
        hung = wanted is None
        os.kill(pid, request.get("signal", signal.SIGKILL))
        if not select.select([descriptor], [], [], 120)[0]:
            os.kill(pid, signal.SIGKILL)
    os.close(descriptor)
    _, code, usage = os.wait4(pid, 0)
    return {
        "code": os.waitstatus_to_exitcode(code),
        "hung": hung,
        "seconds": time.monotonic() - begin,
        "processor": usage.ru_utime + usage.ru_stime,
        "grown": max(0, usage.ru_maxrss * 1024 - before),
    }


def victim(request: dict[str, Any], folder: Path) -> None:
    code = 70
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), number)
        tell = teller(os.open(folder / "told", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666))
        os.environ.update(request.get("environment", {}))
        os.chdir(request.get("cwd", "/"))
        limits = request.get("limits", {})
        if "more" in request:  # bytes of memory that this process may take beyond what it has
            limits = {**limits, "AS": status("VmSize") + request["more"]}
        for name, limit in limits.items():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, resource.RLIM_INFINITY))
        if user := request.get("user"):
            os.setgid(user)
            os.setuid(user)
        fault = request.get("fault")
        seam = None
        if fault:
            seam = Seam(Path(request["root"]), tell=tell, **fault)
            seam.install()
        if request.get("spy"):
            calls.spy(tell)
        if prepare := request.get("prepare"):
            getattr(calls, prepare["name"])(**prepare.get("arguments", {}))
        code = calls.run(request)
        if seam is not None and seam.mode in ("record", "error"):
            seam.busy = True
            tell(seam.events)
    except BaseException:  # noqa: BLE001 - a victim ends here, whatever it met
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
