"""What the stages have in common that adapt the child's weights: repair and both kinds of distillation.

Each hands a mapping of tensors to the next, judged by one measure: KL(teacher || child) on a part of the calibration text
that none of them fits to. A stage that does not lower it is dropped as a whole, and what it was given is handed on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyblock.calibration.batches import Batches
from anyblock.candidates.candidate import Candidate
from anyblock.checkpoint.atomic import write_json_atomic
from anyblock.checkpoint.tensor_files import TensorFiles
from anyblock.pipeline.context import RunContext
from anyblock.pipeline.run_folder import RunFolder, file_digest, read_json
from anyblock.realize.held_out import held_out_split
from anyblock.scoring.swaps import ChildScorer

if TYPE_CHECKING:
    import torch

    from anyblock.candidates.candidate_weights import CandidateWeights, Orders

_WEIGHTS = "adapted.safetensors"
_RESULT = "adapted.json"

Work = Callable[
    ["Adapting", Mapping[str, "torch.Tensor"], Path], tuple[Mapping[str, "torch.Tensor"], list[dict[str, Any]]]
]
"""Takes the child, the tensors it was given and the stage's folder; returns tensors, and lines for the report."""
PARTIAL: Final = ".partial"
"""Scratch in a stage's folder, for partial results."""


@dataclass(frozen=True)
class Adapted:
    """Tensors by checkpoint name that replace those of the chosen candidates, and what identifies them."""

    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    key: str = "none"


@dataclass(frozen=True)
class AdaptationResult:
    """What a finished stage did.

    Attributes:
        before, after: KL(teacher || child) in nats a token on the held-out part of the calibration text.
        kept: whether the stage's tensors were handed on.
        lines: what it says of each subblock or layer.
    """

    before: float
    after: float
    kept: bool
    lines: list[dict[str, Any]]


@dataclass
class Adapting:
    """A chosen child whose weights are adapted.

    Attributes:
        context: the run.
        chosen: one candidate a subblock.
        orders: how units are sorted.
        batches: the calibration text.
    """

    context: RunContext
    chosen: Sequence[Candidate]
    orders: Orders
    batches: Batches
    _known: dict[str, float] = field(default_factory=dict, repr=False)

    @property
    def weights(self) -> CandidateWeights:
        """The candidates' weights."""
        return self.context.weights(self.orders)

    @cached_property
    def _judge(self) -> ChildScorer:
        _, held_out = held_out_split(self.batches)
        before = self.context.before
        return ChildScorer(
            self.context.engine,
            self.weights,
            held_out.spread(self.context.config.data.scoring_tokens),
            probes=1,
            seed=self.context.config.seed,
            reference=None if before is None else before.engine,
            spool=self.context.spool(self._scratch),
            progress=self.context.progress,
        )

    @property
    def _scratch(self) -> Path:
        return self.context.run.path / ".held-out"

    def close(self) -> None:
        """Remove what was kept to judge by."""
        self.__dict__.pop("_judge", None)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def divergence(self, tensors: Mapping[str, torch.Tensor]) -> float:
        """Return the KL(teacher || child) on held-out text of the child with these tensors, in nats a token."""
        return self._judge.divergence(self.chosen, changed=tensors)

    def run(self, name: str, given: Adapted, settings: Mapping[str, Any], work: Work) -> Adapted:
        """Run a stage, unless it is finished with the same inputs, and return what it hands on.

        Args:
            name: the stage's.
            given: what the stage before handed on.
            settings: whatever else the result depends on.
            work: what the stage does.
        """
        context = self.context
        stage = context.run.stage(
            name,
            context.inputs(
                orders=self.orders,
                batches=self.batches,
                original=context.original.teacher.fingerprint(),
                chosen=[candidate.to_dict() for candidate in self.chosen],
                judged_tokens=context.config.data.scoring_tokens,
                given=given.key,
                settings=settings,
                seed=context.config.seed,
            ),
        )
        if not stage.skipped:
            with stage.run() as folder:
                tensors, lines = work(self, given.tensors, folder)
                before = self._known[given.key] if given.key in self._known else self.divergence(given.tensors)
                after = self.divergence(tensors)
                kept = after < before
                context.progress.note(
                    f"{name}: KL on held-out text {before:.4f} -> {after:.4f} ({'kept' if kept else 'dropped'})"
                )
                _write(tensors if kept else given.tensors, folder / _WEIGHTS)
                write_json_atomic(folder / _RESULT, {"before": before, "after": after, "kept": kept, "lines": lines})
        path = context.run.result(name, _WEIGHTS)
        adapted = Adapted(TensorFiles([path]), file_digest(path))
        result = read_adaptation(context.run, name)
        assert result is not None
        self._known[adapted.key] = min(result.before, result.after)
        return adapted


def _write(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    path.unlink(missing_ok=True)
    if isinstance(tensors, TensorFiles):
        tensors.join(path)
    else:
        from safetensors.torch import save_file

        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def read_adaptation(run: RunFolder, stage: str) -> AdaptationResult | None:
    """Read a finished stage of this kind; None when there is none of that name."""
    path = run.folder(stage) / _RESULT
    return AdaptationResult(**read_json(path)) if run.is_finished(stage) and path.is_file() else None
