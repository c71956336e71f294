"""Tasks of a run as tasks of Ray.

Ray carries the id of a task to a worker and no data: inputs and results lie in the run folder, which every node has to see.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar

from anyblock.contract.executor import Executor, Needs, Outcome, Task, Tasks
from anyblock.contract.services import services
from anyblock.contract.settings import Positive, Section
from anyblock.errors import AnyBlockError, ExecutionError, InputError
from pydantic import Field

from anyblock_ray.cluster import check_nodes, connect

Share = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class RaySettings(Section):
    """Settings of the executor `ray`."""

    address: str | None = Field(
        default=None,
        min_length=1,
        description="A cluster: `auto`, `HOST:PORT` or `ray://HOST:10001`. `null`: one is started on this machine for the run.",
    )
    workers: Positive | None = Field(
        default=None,
        description="Tasks that are computed at once, at most. `null`: as many as the cluster has room for.",
    )
    cpus: Share | None = Field(default=None, description="CPUs of one task. `null`: as many as it has threads.")
    gpus: Share | None = Field(
        default=None,
        description="GPUs of one task, also a fraction. `null`: 1 where the run's device is a GPU, and none elsewhere.",
    )
    memory: Positive | None = Field(
        default=None,
        description="Bytes of memory that a node needs to have free for one task. `null`: Ray does not ask.",
    )


class RayExecutor(Executor):
    """Computes tasks on the workers of a Ray cluster."""

    summary: ClassVar[str] = "computes tasks on a Ray cluster, or on one that it starts on this machine"
    settings: ClassVar[type[Section]] = RaySettings

    def open(self, needs: Needs) -> None:
        """See `Executor.open`."""
        own: RaySettings = self.settings_given
        on_gpu = needs.device not in ("cpu", "mps")
        if own.gpus is not None and not on_gpu:
            raise InputError(
                f"execution.ray.gpus is {own.gpus:g}, and the run computes on {needs.device}",
                hint="leave it out, or start the run with --device cuda",
            )
        self._cpus = own.cpus if own.cpus is not None else float(needs.threads)
        self._gpus = (own.gpus or 1.0) if on_gpu else 0.0
        connect(own.address, math.ceil(own.workers * self._cpus) if own.workers else None)
        nodes = check_nodes(needs, self._cpus, self._gpus, own.memory or 0)
        slots = max(1, sum(int(node["Resources"]["CPU"] // self._cpus) for node in nodes))
        self._at_once = own.workers or 2 * slots  # one waits for each that is computed; the rest stays here
        names = ", ".join(sorted({str(node["NodeManagerHostname"]) for node in nodes}))
        needs.progress.note(f"ray: nodes {names}; room for {slots} tasks at once, with {self._cpus:g} CPUs each")

    def submit(self, tasks: Tasks) -> Iterator[Outcome]:
        """See `Executor.submit`."""
        import ray

        compute = ray.remote(compute_task)
        needed: dict[str, Any] = {"num_cpus": self._cpus, "num_gpus": self._gpus, "max_retries": 0}
        if self.settings_given.memory:
            needed["memory"] = self.settings_given.memory
        if chosen := {name: value for name, value in os.environ.items() if name.startswith("ANYBLOCK_")}:
            needed["runtime_env"] = {"env_vars": chosen}  # which plugins are in use is part of what computes
        pending: dict[Any, Task] = {}
        try:
            while tasks.waiting or pending:
                while tasks.waiting and len(pending) < self._at_once:
                    task = tasks.waiting.popleft()
                    pending[compute.options(name=task.title, **needed).remote(str(tasks.folder), task.id)] = task
                done, _ = ray.wait(list(pending), num_returns=1)
                for reference in done:
                    yield Outcome(pending.pop(reference), _error_of(reference))
        finally:
            for reference in pending:
                with suppress(ray.exceptions.RayError):
                    ray.cancel(reference, force=True)

    def close(self) -> None:
        """See `Executor.close`; a cluster that was started for the run ends."""
        import ray

        ray.shutdown()


def compute_task(folder: str, task: str) -> None:
    """Compute a task in a worker of Ray."""
    services().run_task(Path(folder), task)


def _error_of(reference: Any) -> Exception | None:
    import ray

    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        return cause if isinstance(cause, AnyBlockError) else ExecutionError(f"{type(cause).__name__}: {cause}")
    except ray.exceptions.RayError as error:
        return ExecutionError(str(error).strip().partition("\n")[0])
    return None
