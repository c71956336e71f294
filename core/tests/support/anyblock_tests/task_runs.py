"""Short runs whose tasks are computed in one place or another, for comparing what they give to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anyblock.config.load import load_config
from anyblock.pipeline.compress import compress

from anyblock_tests.fixtures import TRAINED

TEXT = Path(__file__).parents[4] / "demo" / "text" / "calibration.txt"


def run_arguments(output: Path) -> list[str]:
    """Return the arguments of `anyblock compress` for a run of seconds with six tasks."""
    tokens = {"block_size": 32, "calibration_tokens": 256, "scoring_tokens": 256, "evaluation_tokens": 64}
    settings: dict[str, Any] = {f"data.{name}": value for name, value in tokens.items()}
    settings |= {"pruning.ffn.sizes": "[0.25,0.5]", "scoring.method": "exact", "search.refine_rounds": 0}
    settings |= {"pruning.repair.method": "none", "evaluation.enabled": "false", "execution.threads": 1}
    places = [str(TRAINED), str(output), "--data", str(TEXT), "--budget", "params=0.7x", "--device", "cpu"]
    return [*places, *(f"{key}={value}" for key, value in settings.items())]


def bytes_of_run(output: Path, engine: str = "local", **settings: object) -> dict[str, bytes]:
    """Make a child with this engine, and return the content of the child's files and of its scores.

    Args:
        output: where the child goes.
        engine: the executor.
        settings: its settings.
    """
    model, child, _, data, _, budget, _, device, *overrides = run_arguments(output)
    overrides += [f"data.path={data}", f"search.budget=[{budget}]", f"device={device}", f"execution.engine={engine}"]
    overrides += [f"execution.{engine}.{name}={value}" for name, value in settings.items()]
    result = compress(load_config(None, overrides, {"model": model, "output": child}))
    (scores,) = result.run.glob("stages/*-scores/scores.json")
    files = {path.relative_to(output): path for path in sorted(output.rglob("*")) if path.is_file()}
    return {"scores": scores.read_bytes()} | {str(name): path.read_bytes() for name, path in files.items()}
