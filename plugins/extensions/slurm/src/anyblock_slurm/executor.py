"""Tasks of a run in job arrays of Slurm, through submitit.

A job of the array computes several tasks one after the other, so that it loads the model once. Results lie in the run folder; what
Slurm and submitit say of a job only decides about tasks that have none there.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

from anyblock.contract.executor import Executor, Needs, Outcome, Task, Tasks
from anyblock.contract.settings import Positive, Section
from anyblock.errors import AnyBlockError, ExecutionError, InputError
from pydantic import Field

from anyblock_slurm.job import ComputeTasks

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class SlurmSettings(Section):
    """Settings of the executor `slurm`."""

    jobs: Positive = Field(default=8, description="Jobs of one array, among which the tasks of a stage are divided.")
    partition: str | None = Field(default=None, description="Partition. `null`: the cluster's default.")
    minutes: Positive = Field(
        default=120,
        description="Time limit of a job. One that reaches it, or is preempted, is queued again with what is left.",
    )
    requeues: Positive = Field(default=3, description="How often a job that reached its time limit is queued again.")
    cpus: Positive | None = Field(default=None, description="CPUs of one job. `null`: as many as a task has threads.")
    gpus: Positive | None = Field(
        default=None, description="GPUs of one job. `null`: 1 where the run's device is a GPU, and none elsewhere."
    )
    memory_gb: Positive | None = Field(
        default=None, description="Memory of one job in GB. `null`: the cluster's default."
    )
    parameters: dict[str, str | int] = Field(
        default_factory=dict, description="Further options of sbatch, for instance `{account: lab, qos: high}`."
    )
    poll_seconds: Seconds = Field(default=10.0, description="Seconds between two looks at the jobs.")
    cluster: Literal["slurm", "local"] = Field(
        default="slurm", description="`local`: the same jobs as processes of this machine, to try a configuration."
    )


class SlurmExecutor(Executor):
    """Computes tasks in job arrays."""

    summary: ClassVar[str] = "computes tasks in job arrays of Slurm, on a folder that all nodes see"
    settings: ClassVar[type[Section]] = SlurmSettings

    def open(self, needs: Needs) -> None:
        """See `Executor.open`."""
        own: SlurmSettings = self.settings_given
        on_gpu = needs.device not in ("cpu", "mps")
        if own.gpus is not None and not on_gpu:
            raise InputError(
                f"execution.slurm.gpus is {own.gpus}, and the run computes on {needs.device}",
                hint="leave it out, or start the run with --device cuda",
            )
        missing = [name for name in ("sbatch", "srun", "sacct") if shutil.which(name) is None]
        if own.cluster == "slurm" and missing:
            raise InputError(
                f"Slurm's {', '.join(missing)} is not found on this machine",
                expected="a machine from which jobs can be submitted",
                hint="start the run on a login node, or try the configuration with execution.slurm.cluster=local",
            )
        self._asked: dict[str, Any] = {
            "name": "anyblock",
            "timeout_min": own.minutes,
            "cpus_per_task": own.cpus or needs.threads,
            "tasks_per_node": 1,
        }
        if on_gpu:
            self._asked["gpus_per_node"] = own.gpus or 1
        if own.memory_gb is not None:
            self._asked["mem_gb"] = own.memory_gb
        if own.partition is not None:
            self._asked["slurm_partition"] = own.partition
        if own.parameters:
            self._asked["slurm_additional_parameters"] = dict(own.parameters)

    def submit(self, tasks: Tasks) -> Iterator[Outcome]:
        """See `Executor.submit`."""
        while tasks.waiting:
            yield from self._array(tasks, [tasks.waiting.popleft() for _ in range(len(tasks.waiting))])

    def _array(self, tasks: Tasks, mine: Sequence[Task]) -> Iterator[Outcome]:
        import submitit

        own: SlurmSettings = self.settings_given
        count = min(own.jobs, len(mine))
        cuts = [len(mine) * number // count for number in range(count + 1)]
        # Neighbours stay together: a job that streams layers then loads fewer of them.
        shares = [list(mine[start:end]) for start, end in pairwise(cuts)]
        executor = submitit.AutoExecutor(
            tasks.folder / "slurm", cluster=own.cluster, slurm_max_num_timeout=own.requeues
        )
        executor.update_parameters(**self._asked, slurm_array_parallelism=count)
        ids = [[task.id for task in share] for share in shares]
        try:
            jobs = executor.map_array(ComputeTasks(), [str(tasks.folder)] * count, ids)
        except submitit.core.utils.FailedJobError as error:
            raise InputError(
                f"Slurm does not take the jobs: {str(error).strip().splitlines()[-1]}",
                hint="correct execution.slurm.partition, .parameters or the amounts asked for, and start the run again",
            ) from error
        left = dict(enumerate(shares))
        try:
            while left:
                for number in list(left):
                    ended = jobs[number].done()  # before the look at results, so that none comes between the two
                    finished = [task for task in left[number] if tasks.finished(task)]
                    left[number] = [task for task in left[number] if task not in finished]
                    yield from map(Outcome, finished)
                    if ended:
                        unfinished = left.pop(number)
                        yield from self._failed(tasks, jobs[number], unfinished, len(shares[number]))
                if left:
                    time.sleep(own.poll_seconds)
        finally:
            for number in left:
                jobs[number].cancel(check=False)

    def _failed(self, tasks: Tasks, job: Any, unfinished: Sequence[Task], total: int) -> Iterator[Outcome]:
        """Yield the outcome of what an ended job left, and put back what it did not begin."""
        died = job.exception() if unfinished else None
        if died is None:
            raised = job.result() if unfinished else {}
            yield from (Outcome(task, raised.get(task.id)) for task in unfinished)
            return
        # The job computed in order, so the first of these ended it; where it computed nothing, it may be the node or the job.
        blamed = unfinished if len(unfinished) == total else unfinished[:1]
        last = (job.stderr() or "").strip()[-2000:]
        error = died if isinstance(died, AnyBlockError) else ExecutionError(f"job {job.job_id} ended: {last or died}")
        tasks.waiting.extend(task for task in unfinished if task not in blamed)
        yield from (Outcome(task, error) for task in blamed)
