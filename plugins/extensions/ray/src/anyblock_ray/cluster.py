"""The cluster: reaching or starting it, and refusing nodes that could not compute for the run before anything is computed."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

from anyblock.contract.executor import Needs
from anyblock.errors import InputError

_SECONDS: Final = 10.0
_STORE: Final = 100 * 2**20
"""Bytes of Ray's object store, which carries nothing but small messages."""


def connect(address: str | None, cpus: int | None) -> None:
    """Connect to a cluster, or start one on this machine.

    Args:
        address: see `RaySettings.address`; None starts a cluster.
        cpus: how many CPUs a cluster that is started says it has; None for those of this machine.

    Raises:
        InputError: nothing answers at the address, or another version of Ray or Python does.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to Ray's makers unless the user says so
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        available = cpus or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cpus
        ray.init(num_cpus=available, include_dashboard=False, object_store_memory=_STORE, **options)
        return
    _answers(address)
    try:
        ray.init(address=address, **options)
    except Exception as error:
        raise InputError(
            f"the Ray cluster {address!r} cannot be used: {str(error).strip().partition(chr(10))[0]}",
            expected="`auto` on a node of a running cluster, `HOST:PORT`, or `ray://HOST:10001` with anyblock-ray[client]",
            hint="start one with `ray start --head`, or leave execution.ray.address out",
        ) from error


def _answers(address: str) -> None:
    """Refuse an address at which nothing listens; Ray itself would wait for minutes."""
    host, colon, port = address.rpartition("//")[2].partition("/")[0].rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"no Ray cluster answers at {address}: {error.strerror or error}",
            hint="start one with `ray start --head`, correct execution.ray.address, or leave it out",
        ) from error


def check_nodes(needs: Needs, cpus: float, gpus: float, memory: int) -> list[Mapping[str, Any]]:
    """Return the nodes that have room for a task.

    Raises:
        InputError: there are none, or one of them has other distributions than the run or does not see its folder.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    wanted = {"CPU": cpus, "GPU": gpus, "memory": memory}
    alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    nodes = [node for node in alive if all(node["Resources"].get(name, 0) >= amount for name, amount in wanted.items())]
    if not nodes:
        most = {name: max((node["Resources"].get(name, 0) for node in alive), default=0) for name in wanted}
        short = [name for name in wanted if most[name] < wanted[name]] or ["all of it on one node"]
        raise InputError(
            f"no node of the Ray cluster has room for a task: {', '.join(short)} is short",
            expected=", ".join(
                f"{name} {amount:g} (at most {most[name]:g} on a node)" for name, amount in wanted.items()
            ),
            hint="lower execution.threads, execution.ray.cpus, .gpus or .memory, or add a node that has it",
        )
    seen = next(path for path in (needs.run, *needs.run.parents) if path.exists())
    probe = ray.remote(_probe())
    options = {"num_cpus": 0, "max_retries": 1, "name": "compare versions"}
    asked = [
        probe.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False), **options).remote(
            list(needs.distributions), str(seen)
        )
        for node in nodes
    ]
    faults, there = list[str](), []
    for node, answer in zip(nodes, asked, strict=True):
        try:
            versions, sees = ray.get(answer)
        except ray.exceptions.RayError:  # it died, and the cluster has not noticed yet
            continue
        there.append(node)
        for name, version in needs.distributions.items():
            if versions[name] != version:
                faults.append(
                    f"{node['NodeManagerHostname']} has {name} {versions[name] or 'not at all'}, the run {version}"
                )
        if not sees:
            faults.append(f"{node['NodeManagerHostname']} does not see {seen}")
    if faults:
        raise InputError(
            f"nodes of the Ray cluster differ from where the run is started: {'; '.join(faults)}",
            expected="the same distributions on every node, and a run folder that all of them see",
        )
    if not there:
        raise InputError("no node of the Ray cluster answers", hint="see `ray status`, and start the run again")
    return there


def _probe() -> Callable[[list[str], str], tuple[dict[str, str], bool]]:
    # Inside a function, so that Ray sends its code: a node without this distribution has to answer as well.
    def probe(names: list[str], folder: str) -> tuple[dict[str, str], bool]:
        """Return the version of each distribution on this node, "" where it lacks it, and whether it sees the folder."""
        import importlib.metadata
        import os

        versions = {}
        for name in names:
            try:
                versions[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                versions[name] = ""
        return versions, os.path.exists(folder)  # noqa: PTH110

    return probe
