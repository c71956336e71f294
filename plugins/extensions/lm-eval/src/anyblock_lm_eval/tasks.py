"""Tasks of lm-evaluation-harness on several models, from local files."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Final

import torch
from anyblock.contract.services import services
from anyblock.errors import ExecutionError, InputError, UsageError

_YAML: Final = (".yaml", ".yml")
_RESAMPLES: Final = 1000
"""Of the bootstrap, for the standard errors of metrics that have no formula."""


@dataclass(frozen=True)
class TaskScore:
    """One metric of one task.

    Attributes:
        task: the task's name.
        metric: lm_eval's name of it, with a filter's name after a comma where there is one.
        values: by model.
        errors: standard errors by model, of models for which lm_eval has one.
        higher_is_better: what the task says.
        samples: documents that were scored.
    """

    task: str
    metric: str
    values: dict[str, float]
    errors: dict[str, float]
    higher_is_better: bool
    samples: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def evaluate_tasks(
    models: Mapping[str, str | Path],
    tasks: Sequence[str | Path],
    *,
    limit: int | None = None,
    few_shot: int | None = None,
    batch_size: int = 1,
    device: torch.device | str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
    progress: bool = False,
) -> list[TaskScore]:
    """Run tasks of lm-evaluation-harness on each model.

    Args:
        models: directories or hub ids by the names under which they appear in the result.
        tasks: YAML files of the harness's own form, whose relative `data_files` are looked for next to the file; anything
            without that ending is a task that comes with lm_eval, whose data it downloads.
        limit: use at most so many documents of each task.
        few_shot: solved examples in front of each document; None is what the task says.
        batch_size: documents at a time.
        device: where the models run.
        dtype: what is computed in.
        trust_remote_code: allow code that comes with a checkpoint or a task file (`!function`).
        progress: show on the terminal how many models are done.

    Raises:
        InputError: a task file cannot be read, or names code or data that cannot be used.
        ExecutionError: lm_eval failed.
    """
    if not models or not tasks:
        raise UsageError("no model or no task", expected="at least one of both")
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from anyblock_lm_eval.model import AnyBlockLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    os.environ.setdefault("DISABLE_MULTIPROC", "1")  # lm_eval would fork this process, with its threads, to resample
    read = [_task(task, trust_remote_code=trust_remote_code) for task in tasks]
    found: dict[str, Any] = {}
    shown = services().progress().task("tasks", total=len(models), unit="models") if progress else _silent()
    with shown as advance:
        for name, model in models.items():
            loaded = AnyBlockLM(
                str(model),
                device=str(device),
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                batch_size=batch_size,
            )
            try:
                found[name] = simple_evaluate(
                    model=loaded,
                    tasks=[dict(task) if isinstance(task, dict) else task for task in read],
                    task_manager=TaskManager(include_defaults=any(isinstance(task, str) for task in read)),
                    limit=limit,
                    num_fewshot=few_shot,
                    bootstrap_iters=_RESAMPLES,
                    log_samples=False,
                )
            except Exception as error:
                # Whatever somebody else's task, data set or metric raises.
                raise ExecutionError(
                    f"lm-evaluation-harness failed on the {name}: {type(error).__name__}: {error}",
                    hint="check the task file and its data",
                ) from error
            advance(1)
    return _scores(found)


@contextmanager
def _silent() -> Iterator[Callable[[int], None]]:
    yield lambda _: None


def _task(task: str | Path, *, trust_remote_code: bool) -> str | dict[str, Any]:
    """Return a task's name, or the content of its file with the paths of its data made absolute."""
    path = Path(task)
    if path.suffix not in _YAML:
        return str(task)
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        if not trust_remote_code:
            _refuse_functions(path, set())
            _sandbox_templates()
        config = load_yaml(path, resolve_func=True)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"the task {path} cannot be read: {error}", expected="a YAML file of lm-evaluation-harness"
        ) from error
    if not isinstance(config, dict) or not isinstance(config.get("task"), str):
        raise InputError(
            f"{path} does not name its task", expected="a mapping with the key `task`, and one task a file"
        )
    options = config.get("dataset_kwargs")
    if isinstance(options, dict) and "data_files" in options:
        config["dataset_kwargs"] = {**options, "data_files": _located(options["data_files"], path.resolve().parent)}
    return dict(config)


def _refuse_functions(path: Path, seen: set[Path]) -> None:
    """Refuse a task file that names Python functions, or includes a file that does.

    The parser's own tags are looked at, since a tag can be spelled in several ways (`!%66unction`).

    Raises:
        InputError: the message names the file.
    """
    import yaml  # type: ignore[import-untyped]
    from lm_eval.tasks._yaml_loader import load_yaml

    real = path.expanduser().resolve()
    if real in seen:
        return
    seen.add(real)
    with real.open(encoding="utf-8") as file:
        tags = {getattr(event, "tag", None) or "" for event in yaml.parse(file)}
    if any(tag and not tag.startswith("tag:yaml.org,") for tag in tags):
        raise InputError(
            f"{path} names Python functions (!function), which would be run",
            hint="read them, then pass --trust-remote-code",
        )
    included = load_yaml(real, resolve_func=False, recursive=False).get("include", [])
    for other in included if isinstance(included, list) else [included]:
        _refuse_functions(real.parent / str(other), seen)


def _sandbox_templates() -> None:
    """Let lm_eval fill its prompts in Jinja's sandbox; its own environment lets a template run any code."""
    import lm_eval.utils as harness
    from jinja2.sandbox import SandboxedEnvironment

    if not isinstance(harness.env, SandboxedEnvironment):
        own = harness.env
        harness.env = SandboxedEnvironment(
            loader=own.loader, undefined=own.undefined, keep_trailing_newline=own.keep_trailing_newline
        )
        harness.env.filters = own.filters


def _located(files: Any, folder: Path) -> Any:
    if isinstance(files, Mapping):
        return {split: _located(value, folder) for split, value in files.items()}
    if isinstance(files, list):
        return [_located(value, folder) for value in files]
    place = folder / str(files)
    return str(place) if place.exists() else files


def _scores(found: Mapping[str, Any]) -> list[TaskScore]:
    first = next(iter(found.values()))
    scores = []
    for task, metrics in first["results"].items():
        better = first["higher_is_better"].get(task, {})
        for key in metrics:
            metric, _, chosen = key.partition(",")
            values = {name: result["results"][task].get(key) for name, result in found.items()}
            if metric not in better or not all(_is_number(value) for value in values.values()):
                continue  # a standard error, or a statistic of lm_eval's own
            errors = {name: r["results"][task].get(f"{metric}_stderr,{chosen}") for name, r in found.items()}
            scores.append(
                TaskScore(
                    task=task,
                    metric=metric if chosen in ("", "none") else key,
                    values={name: float(value) for name, value in values.items()},
                    errors={name: float(error) for name, error in errors.items() if _is_number(error)},
                    higher_is_better=bool(better[metric]),
                    samples=int(first["n-samples"][task]["effective"]),
                )
            )
    return scores


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
