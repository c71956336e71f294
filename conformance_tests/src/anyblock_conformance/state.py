"""What a process has apart from objects: it is compared before and after, and put back."""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

State = dict[str, Any]


def process_state() -> State:
    """Return what a library should leave as it is: torch's settings, random numbers, environment, logging."""
    from transformers.utils import logging

    found: State = {
        "torch.get_default_dtype()": torch.get_default_dtype(),
        "torch.get_default_device()": torch.get_default_device(),
        "torch.get_num_threads()": torch.get_num_threads(),
        "torch.is_grad_enabled()": torch.is_grad_enabled(),
        "torch.is_inference_mode_enabled()": torch.is_inference_mode_enabled(),
        "torch.are_deterministic_algorithms_enabled()": torch.are_deterministic_algorithms_enabled(),
        "torch.get_rng_state()": tuple(torch.get_rng_state().tolist()),
        "random.getstate()": random.getstate(),
        "Path.cwd()": str(Path.cwd()),
        "sys.path": tuple(sys.path),
        "warnings.filters": tuple(map(repr, warnings.filters)),
        "transformers' logging verbosity": logging.get_verbosity(),
        "transformers' progress bars": logging.is_progress_bar_enabled(),
    }
    found.update({f"os.environ[{name!r}]": value for name, value in os.environ.items() if name not in _IGNORED})
    return found


def class_state(classes: Iterable[type[Any]]) -> State:
    """Return the methods, by identity, of every class in the modules of these classes."""
    found: State = {}
    for name in sorted({cls.__module__ for cls in classes}):
        for cls in vars(sys.modules[name]).values():
            if isinstance(cls, type) and cls.__module__ == name:
                methods = {method: value for method, value in vars(cls).items() if callable(value)}
                found.update({f"{cls.__name__}.{method}": (id(value),) for method, value in methods.items()})
    return found


# pytest writes the running test into the environment.
_IGNORED: Final = {"PYTEST_CURRENT_TEST"}


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return what differs, in words."""
    found = []
    for name in sorted({*before, *after}):
        old, new = before.get(name, "not set"), after.get(name, "not set")
        if old != new:
            telling = isinstance(old, str | bool | int | torch.dtype) and len(f"{old!r}{new!r}") < 120
            found.append(f"{name} was {old!r} and became {new!r}" if telling else f"{name} was changed")
    return found


@contextmanager
def preserved() -> Iterator[None]:
    """Put torch's settings, random numbers, environment, folder and path back at the end, whatever happens inside."""
    environ, folder, path = dict(os.environ), Path.cwd(), list(sys.path)
    restore: list[Callable[[], object]] = [
        partial(torch.set_default_dtype, torch.get_default_dtype()),
        partial(torch.set_num_threads, torch.get_num_threads()),
        partial(torch.set_grad_enabled, torch.is_grad_enabled()),
        partial(torch.set_rng_state, torch.get_rng_state()),
        partial(random.setstate, random.getstate()),
    ]
    try:
        with warnings.catch_warnings():
            yield
    finally:
        for action in restore:
            action()
        for name in os.environ.keys() - environ.keys():
            del os.environ[name]
        os.environ.update(environ)
        os.chdir(folder)
        sys.path[:] = path
