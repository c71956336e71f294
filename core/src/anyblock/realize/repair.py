"""Least-squares repair of all chosen subblocks in one sweep, on the child's own inputs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from anyblock.calibration.batches import Batches
from anyblock.calibration.sweep import HELD_OUT_EVERY
from anyblock.candidates.candidate import HALVES, Candidate
from anyblock.candidates.views import CandidateWeights
from anyblock.checkpoint.tensor_files import TensorFiles
from anyblock.errors import UsageError
from anyblock.importance.expert_moments import ExpertGramStatistic
from anyblock.importance.hook import HookContext
from anyblock.importance.statistics import GramStatistic
from anyblock.modeling.layerwise import Batch, LayerwiseModel
from anyblock.modeling.spool import IN_MEMORY, Spool, SpooledTensors
from anyblock.modeling.variants import LayerVariants
from anyblock.progress import SILENT, Progress
from anyblock.realize.realize import child_blocks


@dataclass(frozen=True)
class RepairLine:
    """What the repair of one subblock did, measured on tokens that it was not fitted on.

    Attributes:
        group: the subblock.
        ridge: the relative ridge that did best; None where plain removal was better, so that nothing was changed.
        plain_error: squared error of the half's output after plain removal, relative to the output's own size.
        error: the same after the repair.
    """

    group: str
    ridge: float | None
    plain_error: float
    error: float


@torch.no_grad()
def repair(
    engine: LayerwiseModel,
    chosen: Sequence[Candidate],
    weights: CandidateWeights,
    batches: Batches,
    *,
    partial: Path | None = None,
    spool: Spool = IN_MEMORY,
    progress: Progress = SILENT,
) -> tuple[Mapping[str, torch.Tensor], list[RepairLine]]:
    """Re-fit the map behind the removed units of every chosen subblock, layer by layer.

    Each half is fitted to what the teacher's half would do with the inputs that it gets in the child, so that errors of
    earlier layers are not fitted for inputs that never occur.

    Args:
        engine: the teacher.
        chosen: at most one candidate a subblock.
        weights: their weights.
        batches: calibration text; every fourth batch (or the second of two or three) is held out to judge by.
        partial: folder in which finished layers are kept; a later call goes on behind them, and
            the result is mapped from it. None holds all repaired tensors in memory.
        spool: where hidden states are kept.
        progress: where to report; the unit is tokens through one layer.

    Returns:
        `{tensor name: repaired tensor}` and one line a repaired subblock.

    Raises:
        UsageError: there are fewer than two batches, so that nothing could be held out.
    """
    if len(batches) < 2:
        raise UsageError(
            f"{len(batches)} calibration batch is too few to repair with",
            expected="at least two batches: one to fit on, one to judge by",
            hint="give more text, lower data.batch_size, or set pruning.repair.method=none",
        )
    sweep = _Sweep(engine, chosen, weights, min(HELD_OUT_EVERY, len(batches)))
    prepared, hidden = engine.prepare_all(batches, spool)
    repaired: dict[str, torch.Tensor] = {}
    lines: list[RepairLine] = []
    with progress.task("Repairing", total=batches.tokens * engine.num_layers, unit="layer tokens") as advance:
        for index in range(engine.num_layers):
            found = _load(partial, index)
            if found is None:
                found = sweep.fit_layer(index, hidden, prepared)
                _save(partial, index, found)
            lines.extend(found.lines)
            if partial is None:
                repaired.update(found.tensors)
            for position, output in enumerate(sweep.run_child(index, hidden, prepared, found.tensors)):
                hidden[position] = output
            advance(batches.tokens)
    if partial is None:
        return repaired, lines
    return TensorFiles([_file(partial, index) for index in range(engine.num_layers)]), lines


@dataclass(frozen=True)
class _Fitted:
    tensors: dict[str, torch.Tensor]
    lines: list[RepairLine]


class _Sweep:
    def __init__(
        self, engine: LayerwiseModel, chosen: Sequence[Candidate], weights: CandidateWeights, held_out_every: int
    ) -> None:
        self.engine = engine
        self.weights = weights
        self.held_out_every = held_out_every
        self.by_group = {candidate.group: candidate for candidate in chosen}
        self.child = child_blocks(engine.block_configs, chosen)
        self.before_ffn = [
            replace(child, ffn=block.ffn) for block, child in zip(engine.block_configs, self.child, strict=True)
        ]
        self.variants = LayerVariants(engine, [list(pair) for pair in zip(self.child, self.before_ffn, strict=True)])

    def fit_layer(self, index: int, hidden: SpooledTensors, batches: Sequence[Batch]) -> _Fitted:
        """Fit both halves of a layer; the ffn sees what the repaired attention gives."""
        found: dict[str, torch.Tensor] = {}
        lines: list[RepairLine] = []
        for half in HALVES:
            candidate = self.by_group.get(f"block_{index}_{half}")
            if candidate is None or not self.weights.is_repairable(candidate):
                continue
            if half == "attention":
                statistic = self._collect(candidate, self.engine.use(index), hidden, batches)
            else:
                tensors = self._block_tensors(index, {"attention"}, found)
                with self.variants.layer(index, self.before_ffn[index], tensors) as layer:
                    statistic = self._collect(candidate, layer, hidden, batches)
            tensors, fit = self.weights.repaired(candidate, statistic.fit, statistic.held_out)
            lines.append(RepairLine(candidate.group, fit.ridge, fit.plain_error, fit.error))
            plain = self.weights.subblock(candidate)
            found.update({name: t.contiguous() for name, t in tensors.items() if not torch.equal(t, plain[name])})
        return _Fitted(found, lines)

    def run_child(
        self, index: int, hidden: SpooledTensors, batches: Sequence[Batch], repaired: Mapping[str, torch.Tensor]
    ) -> Iterator[torch.Tensor]:
        """Run the child's own layer with its repaired tensors, one batch after the other."""
        if self.child[index] == self.engine.block_configs[index]:
            yield from self._run(index, None, hidden, batches)
            return
        tensors = self._block_tensors(index, set(HALVES), repaired)
        with self.variants.layer(index, self.child[index], tensors) as layer:
            yield from self._run(index, layer, hidden, batches)

    def _run(
        self, index: int, layer: nn.Module | None, hidden: SpooledTensors, batches: Sequence[Batch]
    ) -> Iterator[torch.Tensor]:
        for position, batch in enumerate(batches):
            yield self.engine.run(index, hidden[position], batch, layer=layer)

    def _collect(
        self, candidate: Candidate, layer: nn.Module, hidden: SpooledTensors, batches: Sequence[Batch]
    ) -> GramStatistic | ExpertGramStatistic:
        module = layer.get_submodule(self.weights.watched_module(candidate))
        block = self.engine.block_configs[candidate.layer]
        context = HookContext(self.engine.config, block, candidate.layer, len(batches))
        statistic = self.weights.statistic(candidate)(module, context, held_out_every=self.held_out_every)
        handle = statistic.attach()
        try:
            for _ in self._run(candidate.layer, layer, hidden, batches):
                pass
        finally:
            handle.remove()
        return statistic

    def _block_tensors(
        self, index: int, changed: Iterable[str], repaired: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Return a block's tensors in which the halves `changed` are the child's, repaired where they have been."""
        tensors: dict[str, torch.Tensor] = {}
        for half in (*HALVES, "other"):
            group = f"block_{index}_{half}"
            candidate = self.by_group.get(group)
            if half in changed and candidate is not None:
                tensors.update(self.weights.subblock(candidate))
            elif group in self.engine.checkpoint.groups:
                tensors.update(self.engine.checkpoint.load(group))
        return {name: repaired.get(name, tensor) for name, tensor in tensors.items()}


def _load(folder: Path | None, index: int) -> _Fitted | None:
    from safetensors import safe_open

    if folder is None or not _file(folder, index).is_file():
        return None
    with safe_open(_file(folder, index), framework="pt") as file:
        lines = json.loads(file.metadata()["lines"])
        return _Fitted({name: file.get_tensor(name) for name in file.keys()}, [RepairLine(**line) for line in lines])  # noqa: SIM118


def _save(folder: Path | None, index: int, fitted: _Fitted) -> None:
    if folder is None:
        return
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    whole = folder / f"{index}.tmp"
    save_file(fitted.tensors, whole, {"lines": json.dumps([asdict(line) for line in fitted.lines])})
    whole.replace(_file(folder, index))


def _file(folder: Path, index: int) -> Path:
    return folder / f"{index}.safetensors"
