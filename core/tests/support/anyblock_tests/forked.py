"""Fresh Python processes that have torch imported already: forks of one interpreter, which imported nothing else of weight.

Importing torch, and of it and SciPy what transformers imports, takes more than half of what a short command takes. What reads the
environment as it is imported (huggingface_hub, transformers, AnyBlock) is imported in the fork. A test of what a command imports
needs a process of its own.
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

_TEMPLATE = """
import importlib, json, os, sys
from contextlib import suppress

for name in ("torch", "torch._dynamo", "torch.distributed.tensor", "torch.distributed.fsdp", "torch.distributed.checkpoint",
             "scipy.optimize"):
    with suppress(ImportError):
        importlib.import_module(name)


def become(wanted):
    import atexit, runpy, traceback

    os.setsid()
    os.chdir(wanted["folder"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in enumerate(("out", "err"), 1):
        os.dup2(os.open(wanted[name], os.O_WRONLY | os.O_TRUNC), number)
    how, what, *arguments = wanted["arguments"]
    sys.path[:] = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *sys.path[OWN:]]
    sys.path.insert(0, os.getcwd() if how == "-m" else "")
    sys.argv = [how, *arguments]
    code = 1
    try:
        if how == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if not isinstance(stop.code, int | None):
            print(stop.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


# In front of the path are the folder or "" of `-c`, and what this process was given.
OWN = 1 + len([*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
for line in sys.stdin:
    child = os.fork()
    if not child:
        become(json.loads(line))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@cache
def _template() -> subprocess.Popen[str]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    template = subprocess.Popen([sys.executable, "-c", _TEMPLATE], text=True, **pipes)
    atexit.register(template.communicate)  # closes its standard input, with which it ends, and waits
    return template


def run_forked(
    *arguments: str | Path, folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run `python -m MODULE ...` or `python -c CODE ...`.

    Args:
        arguments: those of the interpreter.
        folder: where.
        environment: every variable of the process.
    """
    given = [str(argument) for argument in arguments]
    assert given[0] in ("-m", "-c"), given
    with tempfile.TemporaryDirectory() as place:
        out, err = Path(place) / "out", Path(place) / "err"
        for file in (out, err):
            file.touch()
        wanted = {"arguments": given, "folder": str(folder), "environment": dict(environment)}
        template = _template()
        assert template.stdin is not None
        assert template.stdout is not None
        print(json.dumps(wanted | {"out": str(out), "err": str(err)}), file=template.stdin, flush=True)
        code = int(template.stdout.readline())
        return subprocess.CompletedProcess([sys.executable, *given], code, out.read_text(), err.read_text())
