"""What victims run: the command line itself, or `load_model`, which no command calls on its own."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

SMALL = ["data.block_size=32", "data.calibration_tokens=256", "data.scoring_tokens=64", "data.evaluation_tokens=64"]
SMALL += ["data.batch_size=4", "pruning.ffn.sizes=[0.5]", "search.refine_rounds=1", "device=cpu"]


def compress_arguments(model: Path, out: Path, text: Path, *more: str) -> list[str]:
    """A compression that takes under a second on the tiny trained model."""
    return ["compress", str(model), str(out), "--budget", "params=0.75x", "--data", str(text), *SMALL, *more]


def run(request: dict[str, Any]) -> int:
    """Run a request's command line, or its call, with the exit codes and messages of the command line."""
    from anyblock import cli

    if "argv" in request:
        cli._take_signals()
        try:
            return int(cli._run(request["argv"]))
        except SystemExit as stop:
            return int(stop.code or 0)
    call: Callable[..., object] = globals()[f"_{request['call']}"]
    return int(_reported(lambda: call(**request.get("arguments", {}))))


def _reported(call: Callable[[], object]) -> int:
    from anyblock.errors import AnyBlockError, InputError

    try:
        call()
    except AnyBlockError as error:
        sys.stderr.write(f"anyblock: error: {error}\n")
        return 2 if isinstance(error, InputError) else 1
    except MemoryError:
        sys.stderr.write("anyblock: error: out of memory\n")
        return 1
    return 0


def _load(path: str) -> None:
    from anyblock import load_model

    load_model(path)


def warm_up(model: Path, folder: Path) -> None:
    """Import what a run needs by doing one."""
    import torch

    torch.set_num_threads(1)
    text = folder / "text.txt"
    text.write_text("\n".join("the green tree walks under the old house by the river." for _ in range(60)))
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        for argv in (
            compress_arguments(model, folder / "child", text),
            ["convert", str(model), str(folder / "converted")],
            ["inspect", str(model)],
        ):
            code = run({"argv": argv})
            assert code == 0, (argv, code)
        _load(str(model))
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)


def spy(tell: Callable[[Any], None]) -> None:
    """Report every path that is opened from now on."""
    seen: set[str] = set()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and not isinstance(arguments[0], int) and arguments[0] is not None:
            path = os.path.abspath(os.fsdecode(arguments[0]))  # noqa: PTH100
            if path not in seen:
                seen.add(path)
                flags = arguments[2] if isinstance(arguments[2], int) else 0
                tell([path, bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))])
        elif event in ("os.system", "subprocess.Popen", "socket.connect", "pickle.find_class", "os.exec"):
            tell([f"<{event}>", True])

    sys.addaudithook(hook)


def failing_reads(path: str, after: int, code: int = errno.EIO) -> None:
    """Let reads of a file fail from the n-th on, as a dying disk does."""
    left = after
    pread, copy_file_range, sendfile = os.pread, os.copy_file_range, os.sendfile

    def check(descriptor: int) -> None:
        nonlocal left
        if str(Path(f"/proc/self/fd/{descriptor}").readlink()) == path:
            left -= 1
            if left < 0:
                raise OSError(code, os.strerror(code), path)

    def read(descriptor: int, *rest: Any) -> Any:
        check(descriptor)
        return pread(descriptor, *rest)

    def copy(source: int, *rest: Any) -> Any:
        check(source)
        return copy_file_range(source, *rest)

    def send(target: int, source: int, *rest: Any) -> Any:
        check(source)
        return sendfile(target, source, *rest)

    os.pread, os.copy_file_range, os.sendfile = read, copy, send


def changing_source(path: str, how: str, after: int) -> None:
    """Change a file when bytes have been copied n times."""
    from anyblock.checkpoint import transfer

    left = after
    step = transfer.Copier._step

    def deadly(self: Any, *arguments: Any) -> int:
        nonlocal left
        left -= 1
        if left == 0:
            if how == "shrink":
                os.truncate(path, os.stat(path).st_size // 2)  # noqa: PTH116
            else:
                with open(path, "r+b") as file:  # noqa: PTH123
                    file.seek(-1, 2)
                    file.write(b"\x55")
        return step(self, *arguments)

    transfer.Copier._step = deadly


def little_space(free: int) -> None:
    """Let the disk look almost full."""
    import shutil

    shutil.disk_usage = lambda _: type("Usage", (), {"free": free, "total": free, "used": 0})()


def connect(url: str, token: str) -> None:
    """Know no hub but the one at `url`."""
    from huggingface_hub import constants

    for name in list(os.environ):
        if "PROXY" in name.upper():
            del os.environ[name]
    os.environ["HF_TOKEN"] = token
    constants.ENDPOINT = url
    constants.HF_HUB_DISABLE_XET = True
    constants.HF_HUB_OFFLINE = False


def work_clock() -> None:
    """Let timed work take a second a multiplication of a linear layer: whole numbers, so that times are the same in every run."""
    import torch
    from anyblock.measuring import timing

    seconds = 0

    def work(module: torch.nn.Module, arguments: tuple[Any, ...], _: Any) -> None:
        nonlocal seconds
        if isinstance(module, torch.nn.Linear):
            seconds += arguments[0].numel() // arguments[0].shape[-1] * module.weight.numel()

    torch.nn.modules.module.register_module_forward_hook(work)
    timing.time = type("Clock", (), {"perf_counter": staticmethod(lambda: seconds)})
