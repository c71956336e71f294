"""Slurm's commands for one machine: jobs are processes. Called by name, through links: sbatch, srun, sacct, scancel.

The folder in `FAKE_SLURM` has a number for each job, what was asked of sbatch, and the processes of its elements.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

STATE = Path(os.environ.get("FAKE_SLURM", "."))


def sbatch(script: str) -> None:
    text = Path(script).read_text()
    job = 100 + len(list(STATE.glob("*.sbatch")))
    (STATE / f"{job}.sbatch").write_text(text)
    if "--partition=closed" in text:
        sys.exit("sbatch: error: invalid partition specified: closed")
    array = re.search(r"--array=0-(\d+)", text)
    for element in range(int(array[1]) + 1 if array else 1):
        environment = {
            **os.environ,
            "SLURM_JOB_ID": str(job + element),
            **({"SLURM_ARRAY_JOB_ID": str(job), "SLURM_ARRAY_TASK_ID": str(element)} if array else {}),
            "SLURM_NTASKS": "1",
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_NODEID": "0",
            "SLURM_PROCID": "0",
            "SLURM_LOCALID": "0",
            "SLURM_JOB_NODELIST": "here",
        }
        name = f"{job}_{element}" if array else str(job)
        process = subprocess.Popen(
            [sys.executable, __file__, "element", str(STATE / name), script],
            env=environment | {"FAKE_SLURM_NAME": name},
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        (STATE / f"{name}.pid").write_text(str(process.pid))
    print(f"Submitted batch job {job}")


def element(place: str, script: str) -> None:
    code = subprocess.call(["bash", script])
    Path(place + ".state").write_text("COMPLETED" if code == 0 else "FAILED")


def srun(*arguments: str) -> None:
    words = list(arguments)
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if "=" not in option and not words[0].startswith("-") and option in ("--output", "--error"):
            words.pop(0)
    (STATE / f"{os.environ['FAKE_SLURM_NAME']}.step").write_text(str(os.getpid()))
    os.execvp(words[0], words)


def sacct(*_: str) -> None:
    print("JobID|State|NodeList")
    for pid in STATE.glob("*.pid"):
        state = pid.with_suffix(".state")
        print(f"{pid.stem}|{state.read_text() if state.is_file() else 'RUNNING'}|here")


def scancel(*jobs: str) -> None:
    for pid in STATE.glob("*.pid"):
        if any(pid.stem == job or pid.stem.startswith(f"{job}_") for job in jobs):
            try:
                os.killpg(int(pid.read_text()), signal.SIGKILL)
            except ProcessLookupError:
                continue
            pid.with_suffix(".state").write_text("CANCELLED")


if __name__ == "__main__":
    name, words = Path(sys.argv[0]).stem, sys.argv[1:]
    if name == "fake_slurm":
        name, *words = words
    {"sbatch": sbatch, "element": element, "srun": srun, "sacct": sacct, "scancel": scancel}[name](*words)
