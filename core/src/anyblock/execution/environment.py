"""What computes: the distributions of the run's own process, and whether another process has the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from anyblock.config.schema import ExecutionConfig, RunConfig
from anyblock.contract.executor import Executor, Needs
from anyblock.family import ModelFamily
from anyblock.plugins.blame import blaming
from anyblock.progress import Progress


@contextmanager
def opened_executor(
    config: RunConfig, family: ModelFamily, run: Path, device: str, progress: Progress
) -> Iterator[Executor]:
    """Give the run's executor, ready to compute, and close it afterwards.

    Raises:
        InputError: the place cannot be reached, or is not as the run needs it.
        PluginError: the executor failed; the message names its distribution.
    """
    name = config.execution.engine
    chosen: type[Executor] = family.one("executors", name)
    executor = chosen(config.section(f"execution.{name}", chosen.settings))
    needs = Needs(run.resolve(), distributions(family), device, task_threads(config.execution), progress)
    try:
        with blaming(family.origins("executors")[name], f"the executor {name!r}", chosen):
            executor.open(needs)
        yield executor
    finally:
        executor.close()


def task_threads(config: ExecutionConfig) -> int:
    """Return how many threads a task has."""
    import torch

    return config.threads or torch.get_num_threads()


def distributions(family: ModelFamily) -> dict[str, str]:
    """Return `{distribution: version}` of everything that computes, the adapter and the extensions in use included."""
    names = ["anyblock", "torch", "transformers", family.distribution]
    names += [text.partition(" ")[0] for text in family.extensions]
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # an object that was given, or a family that was inferred
            continue
    return found


def other_distributions(wanted: Mapping[str, str]) -> list[str]:
    """Return how this process differs from `{distribution: version}`, one phrase for each that it lacks or has otherwise."""
    found = []
    for name, expected in wanted.items():
        try:
            here = version(name)
        except PackageNotFoundError:
            found.append(f"{name} {expected} is not installed")
            continue
        if here != expected:
            found.append(f"{name} is {here}, and the run has {expected}")
    return found
