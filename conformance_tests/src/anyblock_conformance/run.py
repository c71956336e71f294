"""`run_conformance`: the suite from Python, without pytest."""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import anyblock
from anyblock.errors import UsageError, nearest
from anyblock.family import ModelFamily, get_family
from anyblock.progress import SILENT, Progress

from anyblock_conformance import __version__
from anyblock_conformance.headers import Shape
from anyblock_conformance.levels import Level
from anyblock_conformance.report.model import Report
from anyblock_conformance.session import Session
from anyblock_conformance.subject import Subject
from anyblock_conformance.summary import capability_results, level_result


def run_conformance(
    adapter: str | ModelFamily | object,
    *,
    model_type: str | None = None,
    expected_failures: Mapping[str, str] | None = None,
    levels: Iterable[Level | str] | None = None,
    progress: Progress = SILENT,
) -> Report:
    """Check an adapter on the tiny model of its `conformance_config`.

    Args:
        adapter: the `model_type` of an installed family, a `ModelFamily`, or a descriptor (an object or a class).
        model_type: what a descriptor serves; its tiny configuration's own when not given.
        expected_failures: `{check id: reason}` for what is known not to work.
        levels: the levels to run; all when not given.
        progress: receives how many checks are done.

    Raises:
        UnsupportedModelError: no installed adapter serves the `model_type`.
        PluginError: the descriptor breaks the contract.
        UsageError: an expected failure with an unknown id or without a reason.
    """
    family = as_family(adapter, model_type)
    with _folder() as folder:
        session = Session(Subject(family, folder), expected_failures=expected_failures, levels=as_levels(levels))
        command = _command(adapter, family, session)
        return finish(session, subject=family.model_type, command=command, progress=progress)


def run_checkpoint(
    path: Path,
    *,
    family: ModelFamily | None = None,
    full: bool = False,
    levels: Iterable[Level | str] | None = None,
    shapes: Mapping[str, Shape] | None = None,
    name: str = "",
    command: str = "",
) -> Report:
    """Check the adapter of a local checkpoint on that checkpoint.

    Args:
        path: its directory.
        family: the adapter; the installed one for its `model_type` when not given.
        full: load it and run everything that applies; otherwise config and headers are read, and no weights.
        levels: the levels to run; all when not given.
        shapes: its tensors, where the directory holds only a configuration.
        name: what the report calls it; its path when not given.
        command: what to repeat for the same report.

    Raises:
        ConfigError: there is no usable `config.json`.
        UnsupportedModelError: no installed adapter serves it.
    """
    from anyblock.checkpoint.config import read_config
    from anyblock.modeling.process_memory import return_freed_memory

    if full:
        return_freed_memory()
    own = family or get_family(read_config(path)["model_type"])
    with _folder() as folder:
        subject = Subject(own, folder, scope="weights" if full else "headers", source=path, shapes=shapes)
        session = Session(subject, levels=as_levels(levels))
        shown = command or f"anyblock conformance {path}{' --full' if full else ''}"
        return finish(session, subject=name or str(path), command=shown)


def finish(session: Session, *, subject: str, command: str, progress: Progress = SILENT) -> Report:
    """Run what has not been run, and return the report."""
    begin = time.perf_counter()
    with progress.task(f"conformance {subject}", total=len(session.plan), unit="checks") as advance:
        for identifier in session.plan:
            session.result(identifier)
            advance(1)
    results = session.results()
    family = session.subject.family
    return Report(
        subject=subject,
        model_type=family.model_type,
        scope=session.subject.scope,
        command=command,
        versions=versions(family),
        results=results,
        levels=[level_result(session, level) for level in session.levels],
        capabilities=capability_results(session),
        seconds=time.perf_counter() - begin,
    )


def as_family(adapter: str | ModelFamily | object, model_type: str | None = None) -> ModelFamily:
    """Return the family of a `model_type`, of a descriptor, or itself.

    Raises:
        UnsupportedModelError: no installed adapter serves the `model_type`.
        PluginError: the descriptor breaks the contract.
    """
    if isinstance(adapter, ModelFamily):
        return adapter
    if isinstance(adapter, str):
        return get_family(adapter)
    descriptor = adapter() if isinstance(adapter, type) else adapter
    if model_type is None:
        model_type = ModelFamily.from_descriptor(descriptor, model_type="?").conformance_config().model_type
    return ModelFamily.from_descriptor(descriptor, model_type=model_type)


def as_levels(levels: Iterable[Level | str] | None) -> list[Level] | None:
    """Return levels by name.

    Raises:
        UsageError: there is no such level.
    """
    if levels is None:
        return None
    known = [str(level) for level in Level]
    chosen = [str(level) for level in levels]
    for name in chosen:
        if name not in known:
            raise UsageError(f"unknown level {name!r}", expected=", ".join(known), hint=nearest(name, known))
    return [Level(name) for name in chosen]


def versions(family: ModelFamily) -> dict[str, str]:
    """Return the versions of everything that the results depend on."""
    import torch
    import transformers

    return {
        "anyblock": anyblock.__version__,
        family.distribution: family.version,
        "anyblock-conformance": __version__,
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def _command(adapter: object, family: ModelFamily, session: Session) -> str:
    chosen = "".join(f" --level {level}" for level in session.levels) if len(session.levels) < len(Level) else ""
    if isinstance(adapter, str):
        return f"anyblock conformance {family.model_type}{chosen}"
    cls = type(family.descriptor)
    code = f"import anyblock_conformance as c, {cls.__module__} as a; print(c.run_conformance(a.{cls.__qualname__}).to_dict())"
    return f'python -c "{code}"'


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="anyblock-conformance-") as folder:
        yield Path(folder)
