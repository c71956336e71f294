"""What the stages have in common that adapt the child's weights: repair and both kinds of distillation.

Each hands a mapping of tensors to the next, judged by one measure: KL(teacher || child) on a part of the calibration text
that none of them fits to. A stage that does not lower it, or whose numbers become NaN or infinite, is dropped as a whole, and
what it was given is handed on.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyblock.calibration.batches import Batches
from anyblock.candidates.candidate import Candidate
from anyblock.checkpoint.atomic import write_json_atomic
from anyblock.checkpoint.tensor_files import TensorFiles
from anyblock.errors import NotFiniteError
from anyblock.modeling.finite import all_finite, finite_or_none, require_finite_child
from anyblock.pipeline.context import RunContext
from anyblock.pipeline.run_folder import RunFolder, file_digest, read_json
from anyblock.realize.held_out import held_out_split
from anyblock.scoring.swaps import Surroundings

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
        before, after: KL(teacher || child) in nats per token on the held-out part of the calibration text; None where it is
            not finite.
        kept: whether the stage's tensors were handed on.
        lines: what it says of each subblock or layer.
        diverged: whether it was dropped because its numbers became NaN or infinite.
    """

    before: float | None
    after: float | None
    kept: bool
    lines: list[dict[str, Any]]
    diverged: bool = False

    @property
    def outcome(self) -> str:
        """Whether the stage was kept, and if not, why."""
        if self.kept:
            return "kept"
        return "dropped: " + ("diverged" if self.diverged else "did not lower the KL on held-out text")


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
    def _judge(self) -> Surroundings:
        _, held_out = held_out_split(self.batches)
        count = max(1, min(len(held_out.ids), self.context.config.data.scoring_tokens // held_out.block_size))
        ids = held_out.ids[[place * len(held_out.ids) // count for place in range(count)]]
        before = self.context.before
        return Surroundings(
            self.context.engine,
            self.weights,
            Batches(ids, held_out.batch_size),
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
        """Return the KL(teacher || child) on held-out text of the child with these tensors, in nats per token.

        It is infinite where the child gives NaN or infinite numbers.
        """
        return self._judge.divergence(self.chosen, changed=tensors)

    def run(self, name: str, given: Adapted, settings: Mapping[str, Any], work: Work) -> Adapted:
        """Run a stage, unless it is finished with the same inputs, and return what it hands on.

        Args:
            name: the stage's.
            given: what the stage before handed on.
            settings: whatever else the result depends on.
            work: what the stage does.

        Raises:
            NotFiniteError: the child gives NaN or infinite numbers, and the stage did not mend that.
        """
        context = self.context
        stage = context.run.stage(
            name,
            {
                "teacher": context.teacher.fingerprint(),
                "original": context.original.teacher.fingerprint(),
                "chosen": [candidate.to_dict() for candidate in self.chosen],
                "orders": context.choices_key(self.orders),
                "tokens": self.batches.key,
                "batch_size": self.batches.batch_size,
                "judged_tokens": context.config.data.scoring_tokens,
                "given": given.key,
                "settings": settings,
                "seed": context.config.seed,
                "execution": context.execution,
            },
        )
        if not stage.skipped:
            with stage.run() as folder:
                tensors, finite = given.tensors, False
                lines: list[dict[str, Any]] = []
                with suppress(NotFiniteError):
                    tensors, lines = work(self, given.tensors, folder)
                    finite = all_finite(tensors.values())
                before = self._known[given.key] if given.key in self._known else self.divergence(given.tensors)
                after = self.divergence(tensors) if finite else math.inf
                kept = after < before
                result = AdaptationResult(
                    finite_or_none(before), finite_or_none(after), kept, lines, not kept and _diverged(after, lines)
                )
                context.progress.note(
                    f"{name.partition('-')[2]}: KL on held-out text {before:.4f} -> {after:.4f} ({result.outcome})"
                )
                _write(tensors if kept else given.tensors, folder / _WEIGHTS)
                write_json_atomic(folder / _RESULT, asdict(result))
        path = context.run.result(name, _WEIGHTS)
        adapted = Adapted(TensorFiles([path]), file_digest(path))
        done = read_adaptation(context.run, name)
        assert done is not None
        self._known[adapted.key] = require_finite_child(done.after if done.kept else done.before, context.engine.dtype)
        return adapted


def _diverged(after: float, lines: Sequence[Mapping[str, Any]]) -> bool:
    """Say of a dropped stage whether its numbers became NaN or infinite before it had anything to show."""
    return after == math.inf or (
        any(line.get("diverged") for line in lines) and not any(line["epoch"] for line in lines)
    )


def _write(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    path.unlink(missing_ok=True)
    if isinstance(tensors, TensorFiles):
        tensors.join(path)
    else:
        from safetensors.torch import save_file

        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def read_adaptation(run: RunFolder, stage: str) -> AdaptationResult | None:
    """Read a finished stage of this kind; None when there is none of that name."""
    folder = run.path / "stages" / stage
    finished = (folder / _RESULT).is_file() and (folder / "stage.json").is_file()
    return AdaptationResult(**read_json(folder / _RESULT)) if finished else None
