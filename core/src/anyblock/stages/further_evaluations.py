"""Stages `evaluation-NAME`: what evaluations of extensions measure on the child."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from anyblock.calibration.batches import Batches
from anyblock.checkpoint.atomic import write_json_atomic
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.contract.evaluation import EvaluationContext, Figure, read_figures
from anyblock.contract.services import LoadedModel, services
from anyblock.errors import PluginError
from anyblock.plugins.blame import blaming
from anyblock.run.context import RunContext
from anyblock.run.run_folder import read_json

_STAGE: Final = "evaluations:{name}"
_FILE: Final = "figures.json"


def run_further_evaluations(
    context: RunContext, child: SubblockCheckpoint, batches: Batches
) -> dict[str, list[Figure]]:
    """Return `{name: figures}` of every evaluation that `evaluation.also` names.

    Raises:
        PluginError: an evaluation raised, or returned anything but figures; the message names its distribution.
    """
    found: dict[str, list[Figure]] = {}
    origins = context.family.origins("evaluations") if context.config.evaluation.also else {}
    for name in context.config.evaluation.also:
        chosen = context.family.named("evaluations")[name]
        settings = context.config.section(f"evaluation.{name}", chosen.settings)
        stage = context.run.stage(
            _STAGE.format(name=name),
            {
                "reference": context.reference.checkpoint.fingerprint(),
                "child": child.fingerprint(),
                "tokens": batches.key,
                "settings": settings.to_dict(),
                "distribution": str(origins[name]),
                "seed": context.config.seed,
                "execution": context.execution,
            },
        )
        if not stage.skipped:
            with (
                stage.run() as folder,
                context.progress.task(f"Evaluation {name}", total=1, unit="evaluations") as done,
            ):
                given = EvaluationContext(
                    child.path,
                    context.reference.checkpoint.path,
                    batches.ids,
                    _loader(context),
                    context.config.seed,
                    context.progress,
                )
                with blaming(origins[name], f"the evaluation {name!r}", chosen):
                    figures = list(chosen(settings).run(given))
                if not all(isinstance(figure, Figure) for figure in figures):
                    raise PluginError(
                        f"the evaluation {name!r} of {origins[name]} returned something else than figures",
                        expected="a sequence of anyblock.contract.evaluation.Figure",
                    )
                write_json_atomic(folder / _FILE, [figure.to_dict() for figure in figures])
                done(1)
        found[name] = read_figures(read_json(context.run.result(_STAGE.format(name=name), _FILE)))
    return found


def _loader(context: RunContext) -> Callable[[Path], LoadedModel]:
    def load(folder: Path) -> LoadedModel:
        """Load a model on the run's device and in its dtype."""
        return services().load_model(
            folder,
            tokenizer=context.reference.source.path,
            device=str(context.teacher.device),
            dtype=str(context.teacher.dtype).removeprefix("torch."),
        )

    return load
