"""What the stages have in common that adapt the child's weights: the repair and those of extensions.

Each hands a mapping of tensors to the next, judged by one measure: KL(teacher || child) on a part of the calibration text
that none of them fits to. A stage that does not lower it, or whose numbers become NaN or infinite, is dropped as a whole, and
what it was given is handed on.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from anyblock.calibration.batches import Batches
from anyblock.candidates.candidate import Candidate, child_blocks
from anyblock.checkpoint.atomic import write_json_atomic, write_tensors_atomic
from anyblock.checkpoint.tensor_files import TensorFiles
from anyblock.contract.adaptation import Adaptation, ChosenChild
from anyblock.contract.blocks import BlockConfig, layer_of
from anyblock.errors import NotFiniteError
from anyblock.modeling.finite import all_finite, finite_or_none, require_finite_child
from anyblock.plugins.blame import blaming, check_result
from anyblock.progress import Progress
from anyblock.realize.held_out import held_out_split
from anyblock.realize.layerwise_child import ChildByLayers
from anyblock.run.context import RunContext
from anyblock.run.run_folder import RunFolder, file_digest, read_json
from anyblock.scoring.swaps import ChildScorer

if TYPE_CHECKING:
    from torch import nn

    from anyblock.candidates.candidate_weights import CandidateWeights
    from anyblock.candidates.sources import Orders
    from anyblock.config.schema import RunConfig
    from anyblock.family import ModelFamily

_WEIGHTS = "adapted.safetensors"
_RESULT = "adapted.json"

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
class Adapting(ChosenChild):
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

    @property
    def seed(self) -> int:
        """See `ChosenChild`."""
        return self.context.config.seed

    @property
    def progress(self) -> Progress:
        """See `ChosenChild`."""
        return self.context.progress

    @property
    def teacher_block_configs(self) -> Sequence[BlockConfig]:
        """See `ChosenChild`."""
        return self.context.teacher.source.block_configs

    @property
    def block_configs(self) -> Sequence[BlockConfig]:
        """See `ChosenChild`."""
        return child_blocks(self.context.teacher.source.block_configs, self.chosen)

    @cached_property
    def layerwise(self) -> ChildByLayers:
        """See `ChosenChild`."""
        context = self.context
        return ChildByLayers(
            context.teacher.engine, context.reference.engine, self.weights, self.chosen, self.batches, context.spool
        )

    @property
    def fit_ids(self) -> torch.Tensor:
        """See `ChosenChild`."""
        return self.layerwise.fit_ids

    def model(self, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
        """See `ChosenChild.model`."""
        from anyblock.modeling.load import load_model
        from anyblock.realize.realize import realize

        teacher = self.context.teacher
        with tempfile.TemporaryDirectory(prefix=".child-", dir=self.context.run.path) as folder:
            written = realize(teacher.checkpoint, self.chosen, self.weights, Path(folder) / "child", repaired=tensors)
            model: nn.Module = load_model(written, device=teacher.device, dtype=teacher.dtype)
            with torch.no_grad():  # its files are gone in a moment
                for parameter in model.parameters():
                    parameter.data = parameter.data.clone()
        return model

    def teacher(self) -> nn.Module:
        """See `ChosenChild.teacher`."""
        from anyblock.modeling.load import load_model

        given = self.context.reference
        model: nn.Module = load_model(given.checkpoint.path, device=given.device, dtype=given.dtype)
        return model

    def tensors_of(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """See `ChosenChild.tensors_of`."""
        from transformers.core_model_loading import revert_weight_conversion

        groups = self.context.teacher.checkpoint.groups
        mine = {name for group, names in groups.items() if layer_of(group) is not None for name in names}
        written = revert_weight_conversion(model, dict(model.state_dict()))
        return {name: tensor.detach().cpu() for name, tensor in written.items() if name in mine}

    @cached_property
    def _judge(self) -> ChildScorer:
        _, held_out = held_out_split(self.batches)
        return ChildScorer(
            self.context.teacher.engine,
            self.context.reference.engine,
            self.weights,
            held_out.spread(self.context.config.data.scoring_tokens),
            probes=1,
            seed=self.context.config.seed,
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

    def run(self, name: str, adaptation: Adaptation, given: Adapted) -> Adapted:
        """Run an adaptation, unless it is finished with the same inputs, and return what it hands on.

        Args:
            name: the adaptation's.
            adaptation: what to do.
            given: what the stage before handed on.

        Raises:
            NotFiniteError: the child gives NaN or infinite numbers, and the stage did not mend that.
            PluginError: an adaptation of a plugin raised; the message names its distribution.
        """
        origin = self.context.family.origins("adaptations")[name]
        settings: dict[str, Any] = adaptation.settings_given.to_dict() | {"distribution": str(origin)}
        what, stage_name = f"the adaptation {name!r}", stage_of(name)
        context = self.context
        stage = context.run.stage(
            stage_name,
            context.inputs(
                orders=self.orders,
                batches=self.batches,
                reference=context.reference.checkpoint.fingerprint(),
                chosen=[candidate.to_dict() for candidate in self.chosen],
                judged_tokens=context.config.data.scoring_tokens,
                given=given.key,
                settings=settings,
                seed=context.config.seed,
            ),
        )
        if not stage.skipped:
            with stage.run() as folder:
                tensors, finite = given.tensors, False
                lines: list[dict[str, Any]] = []
                with suppress(NotFiniteError), blaming(origin, what, adaptation):
                    tensors, lines = adaptation.run(self, given.tensors, folder)
                    check_result(origin, what, tensors, Mapping, "tensors by checkpoint name, and a list of lines")
                    finite = all_finite(tensors.values())
                before = self._known[given.key] if given.key in self._known else self.divergence(given.tensors)
                after = self.divergence(tensors) if finite else math.inf
                kept = after < before
                result = AdaptationResult(
                    finite_or_none(before), finite_or_none(after), kept, lines, not kept and _diverged(after, lines)
                )
                context.progress.note(f"{name}: KL on held-out text {before:.4f} -> {after:.4f} ({result.outcome})")
                stage.figures = {"kl": finite_or_none(after if kept else before), "text": "held-out text"}
                _write(tensors if kept else given.tensors, folder / _WEIGHTS)
                write_json_atomic(folder / _RESULT, asdict(result))
        path = context.run.result(stage_name, _WEIGHTS)
        adapted = Adapted(TensorFiles([path]), file_digest(path))
        done = read_adaptation(context.run, stage_name)
        assert done is not None
        self._known[adapted.key] = require_finite_child(done.after if done.kept else done.before, context.teacher.dtype)
        return adapted


def adaptations(config: RunConfig, family: ModelFamily) -> list[tuple[str, Adaptation]]:
    """Return the adaptations that a run makes, by name, in their order."""
    found = []
    for name, adaptation in sorted(family.named("adaptations").items(), key=lambda item: (item[1].order, item[0])):
        path = adaptation.settings_path or f"adaptation.{name}"
        made = adaptation(config.section(path, adaptation.settings))
        if made.enabled:
            found.append((name, made))
    return found


def stage_of(name: str) -> str:
    """Return the name of the stage in which an adaptation runs."""
    return f"adaptations:{name}"


def helped(lines: Sequence[Mapping[str, Any]], did: str, mark: str, before: str, after: str) -> str:
    """Return a sentence about how many lines an adaptation helped, and the relative errors before and after it.

    Args:
        lines: what it says of each subblock or layer.
        did: what was done to those whose `mark` is set.
        mark: the figure that says that a line was helped.
        before, after: the names of the errors.
    """
    if not lines:
        return ""
    known = [line for line in lines if line[before] is not None]
    first, last = (sum(line[error] for line in known) / max(1, len(known)) for error in (before, after))
    return (
        f"{sum(bool(line[mark]) for line in lines)} of {len(lines)} {did}; the relative error of their outputs on held-out "
        f"tokens went from {first:.3f} to {last:.3f} on average."
    )


def _diverged(after: float, lines: Sequence[Mapping[str, Any]]) -> bool:
    """Say of a dropped stage whether its numbers became NaN or infinite before it had anything to show."""
    return after == math.inf or (
        any(line.get("diverged") for line in lines) and not any(line.get("epoch") for line in lines)
    )


def _write(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    path.unlink(missing_ok=True)
    if isinstance(tensors, TensorFiles):
        tensors.join(path)
    else:
        write_tensors_atomic(path, tensors)


def read_adaptation(run: RunFolder, stage: str) -> AdaptationResult | None:
    """Read a finished stage of this kind; None when there is none of that name."""
    path = run.folder(stage) / _RESULT
    return AdaptationResult(**read_json(path)) if run.is_finished(stage) and path.is_file() else None
