"""Writing files and directories that are either complete or absent, also after a crash of the machine."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyblock.checkpoint.json_io import json_bytes
from anyblock.checkpoint.sync import sync, sync_tree
from anyblock.checkpoint.tempfiles import claim, lock, remove_leftovers, temporary_name, writer_of
from anyblock.errors import ExecutionError, InputError, OutputExistsError

if TYPE_CHECKING:
    import torch


def check_target(
    target: str | os.PathLike[str], *, overwrite: bool, sources: Iterable[str | os.PathLike[str]] = ()
) -> Path:
    """Check that a directory may be written at `target`, and return its real path.

    Args:
        target: where the directory is to be; a symbolic link is followed.
        overwrite: an existing directory may be replaced.
        sources: directories that are read meanwhile.

    Raises:
        OutputExistsError: something is there and is not to be replaced, or another process is writing it now.
        InputError: the target is, holds or lies in a source; or replacing it would remove the home or current
            directory.
    """
    real = Path(os.path.realpath(target))
    for source in sources:
        origin = Path(os.path.realpath(source))
        if real == origin or real.is_relative_to(origin) or origin.is_relative_to(real):
            raise InputError(
                f"the output {target} overlaps the input {source}", expected="an output outside of the input"
            )
    if real.parent.is_dir() and (writer := writer_of(real)):
        raise OutputExistsError(
            f"{target} is being written by {writer}",
            expected="one writer of an output at a time",
            hint="wait for it, end it, or choose another output",
        )
    if not os.path.lexists(real):
        return real
    if not real.is_dir():
        raise OutputExistsError(f"{target} is there already and is not a directory", hint="choose another output")
    if not overwrite:
        raise OutputExistsError(
            f"{target} is there already", hint="choose another output, or pass --overwrite (overwrite=True)"
        )
    if os.path.ismount(real):
        raise InputError(f"{target} is a mount point and cannot be replaced", expected="a directory below it")
    for kept in (Path.home(), Path.cwd()):
        if Path(os.path.realpath(kept)).is_relative_to(real):
            raise InputError(
                f"overwriting {target} would remove {kept}",
                expected="an output that holds neither home nor current directory",
            )
    return real


@contextmanager
def atomic_directory(
    target: str | os.PathLike[str], *, overwrite: bool = False, sources: Iterable[str | os.PathLike[str]] = ()
) -> Iterator[Path]:
    """Yield an empty temporary directory that becomes `target` when the block ends without an error.

    The temporary is a sibling named `.{name}.tmp-{pid}-{time and random}`. At the end, everything in it is written to disk
    and it is renamed; a directory that it replaces is moved aside first and removed last. After an error the
    temporary is removed; what a killed process left is removed by the next writer of the same target.

    Raises:
        OutputExistsError, InputError: see `check_target`.
        ExecutionError: the place cannot be written.
    """
    real = check_target(target, overwrite=overwrite, sources=sources)
    with _naming(real):
        real.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(real)
        check_target(real, overwrite=overwrite)
        work, held = claim(real, Path.mkdir)
    try:
        try:
            with _naming(real):
                yield work
                sync_tree(work)
                _install(work, real, overwrite)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
    finally:
        os.close(held)


@contextmanager
def scratch_directory(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty directory next to `target`, named as its temporaries are, that is gone when the block ends.

    What a killed process left of an earlier one is removed first.

    Raises:
        ExecutionError: the place cannot be written.
    """
    real = Path(os.path.realpath(target))
    with _naming(real):
        real.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(real)
        work, held = claim(real, Path.mkdir)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(held)


def _install(work: Path, real: Path, overwrite: bool) -> None:
    with ExitStack() as stack:
        aside = _move_aside(real, stack) if overwrite else None
        try:
            work.rename(real)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                if aside is not None:  # another run has replaced what was to be replaced
                    shutil.rmtree(aside, ignore_errors=True)
                raise _appeared(real) from error
            if aside is not None:
                with suppress(OSError):  # the next writer puts it back
                    aside.rename(real)
            raise
        sync(real.parent)
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def _move_aside(real: Path, stack: ExitStack) -> Path | None:
    """Move an existing output away, locked so that no other process puts it back or removes it meanwhile."""
    try:
        stack.callback(os.close, lock(real))
        return real.rename(real.with_name(temporary_name(real.name, "old")))
    except FileNotFoundError:
        return None
    except BlockingIOError as error:
        raise _appeared(real) from error


def _appeared(real: Path) -> OutputExistsError:
    return OutputExistsError(f"{real} appeared while it was being written", hint="another run may have the same output")


def write_bytes_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    Raises:
        ExecutionError: the place cannot be written.
    """
    file = Path(path)
    with _naming(file):
        remove_leftovers(file)
        work, held = claim(file, lambda path: path.touch(exist_ok=False))
        try:
            with work.open("r+b") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            work.replace(file)
        except BaseException:
            work.unlink(missing_ok=True)
            raise
        finally:
            os.close(held)
        sync(file.parent)


def write_json_atomic(path: str | os.PathLike[str], data: Any) -> None:
    """Write JSON as `write_bytes_atomic` does.

    Raises:
        ExecutionError: the place cannot be written.
        TypeError, ValueError: the data is not JSON; nothing is written.
    """
    write_bytes_atomic(path, json_bytes(data))


def write_tensors_atomic(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file that is whole or absent, and that others may read as any new file.

    Raises:
        OSError: the place cannot be written.
    """
    from safetensors.torch import save_file

    whole = path.with_suffix(".tmp")
    whole.touch()
    mode = whole.stat().st_mode  # safetensors would leave 0600
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, whole, metadata)
    whole.chmod(mode)
    whole.replace(path)


@contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Turn an `OSError` into an error that names the target."""
    try:
        yield
    except OSError as error:
        raise ExecutionError(
            f"{target} was not written: {error.strerror or error}" + (f" ({error.filename})" if error.filename else ""),
            hint="check the permissions and the free space there, or choose another output",
        ) from error
