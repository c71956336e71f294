"""What a layer returns with each of its candidates, on the teacher's hidden states, without computing anything twice.

Whatever the layer computes before its ffn begins is computed once for all candidates of the ffn. Candidates that differ in how
many of the sorted units they keep are one and the same sum with more or fewer terms, so that all of them cost little more than
the largest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import nn

from anyblock.candidates.candidate import Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.contract.blocks import group_name
from anyblock.modeling.activation_cache import Answer, Form, answering, record_answers, replayed
from anyblock.modeling.layerwise import Batch, LayerwiseModel
from anyblock.modeling.process_memory import give_back
from anyblock.modeling.spool import Spool, SpooledTensors
from anyblock.modeling.variants import LayerVariants
from anyblock.scoring.nested_sum import NestedSum

Output = tuple[Candidate, int, torch.Tensor]
"""A candidate, the number of a batch, and the layer's output on it, [batch, length, hidden]."""
_Shared = dict[str, tuple[SpooledTensors, Form]]


class LayerOutputs:
    """Runs the candidates of one layer after the other.

    Args:
        engine: the teacher.
        candidates: what may be asked for.
        weights: their weights.
        batches: the text, prepared.
        spool: where hidden states are kept.
    """

    def __init__(
        self,
        engine: LayerwiseModel,
        candidates: Sequence[Candidate],
        weights: CandidateWeights,
        batches: Sequence[Batch],
        spool: Spool,
    ) -> None:
        self._engine = engine
        self._weights = weights
        self._batches = batches
        self._spool = spool
        self.by_layer: list[list[Candidate]] = [[] for _ in range(engine.num_layers)]
        """The candidates of every layer."""
        for candidate in candidates:
            self.by_layer[candidate.layer].append(candidate)
        self._variants = LayerVariants(engine, [[c.block_config for c in layer] for layer in self.by_layer])

    def run(self, index: int, inputs: SpooledTensors, wanted: Collection[str]) -> Iterator[Output]:
        """Yield the outputs of layer `index`, batch by batch for each candidate; those of several may come in turn.

        A candidate's output does not depend on which others are wanted, so that an interrupted run can go on.

        Args:
            index: the layer.
            inputs: the teacher's hidden states at its input.
            wanted: the keys of the candidates to run.
        """
        give_back()  # what the layer before freed
        ffn = any(candidate.half == "ffn" and candidate.key in wanted for candidate in self.by_layer[index])
        runs = _Runs(self._engine, index, inputs, self._batches)
        shared = self._before_ffn(runs) if ffn else {}
        for family in self._families(index):
            if any(candidate.key in wanted for candidate in family):
                runs.shared = shared if family[0].half == "ffn" else {}
                path = self._weights.nested_in(family[0])
                if path is not None and len(family) > 1:
                    found = self._nested(family, path, runs)
                else:
                    found = self._alone(family, runs)
                yield from (output for output in found if output[0].key in wanted)

    def _families(self, index: int) -> list[list[Candidate]]:
        """Return the candidates, those of a nested kind together, the smallest first."""
        found: dict[str, list[Candidate]] = {}
        for candidate in self.by_layer[index]:
            nests = self._weights.nested_in(candidate) is not None
            found.setdefault(candidate.kind if nests else candidate.key, []).append(candidate)
        return [sorted(family, key=lambda candidate: candidate.size) for family in found.values()]

    def _variant(self, candidate: Candidate) -> AbstractContextManager[nn.Module]:
        return self._variants.layer(candidate.layer, candidate.block_config, self._weights.block(candidate))

    def _before_ffn(self, runs: _Runs) -> _Shared:
        engine, index = self._engine, runs.index
        layer, path = engine.use(index), engine.family.layer_block_name(index)
        names = engine.checkpoint.groups.get(group_name(index, "ffn"), ())
        owners = {engine.weights.target(name)[0].rpartition(".")[0] for name in names}
        ffn = {engine.model.get_submodule(owner) for owner in owners if f"{owner}.".startswith(f"{path}.")}
        shared: _Shared = {}
        for position in range(len(self._batches)):
            for name, (tensor, form) in record_answers(lambda at=position: runs.output(layer, at), layer, ffn).items():  # type: ignore[misc]
                shared.setdefault(name, (self._spool.collect(), form))[0].append(tensor)
        return shared

    def _alone(self, family: Sequence[Candidate], runs: _Runs) -> Iterator[Output]:
        for candidate in family:
            with self._variant(candidate) as layer:
                for position in range(len(self._batches)):
                    yield candidate, position, runs.output(layer, position)

    def _nested(self, family: Sequence[Candidate], path: str, runs: _Runs) -> Iterator[Output]:
        with self._variant(family[0]) as layer:
            smallest = NestedSum(layer, path)
            with smallest.watched():
                runs.output(layer, 0)
        with self._variant(family[-1]) as layer:
            whole = NestedSum(layer, path)
            sizes = [candidate.size * whole.width // family[-1].size for candidate in family[:-1]]
            for position in range(len(self._batches)):
                with whole.watched(sizes):
                    output = runs.output(layer, position)
                if position == 0 and not whole.begins_with(smallest):
                    break
                yield family[-1], position, output
                for candidate, (name, answer) in zip(family[:-1], whole.parts(), strict=True):
                    yield candidate, position, runs.output(layer, position, {name: answer})
            else:
                return
        yield from self._alone(family, runs)


class _Runs:
    """Runs variants of one layer on the batches, with what they share."""

    def __init__(self, engine: LayerwiseModel, index: int, inputs: SpooledTensors, batches: Sequence[Batch]) -> None:
        self.index = index
        self.shared: _Shared = {}
        self._engine = engine
        self._inputs = inputs
        self._batches = batches

    def output(self, layer: nn.Module, position: int, answers: Mapping[str, Answer] | None = None) -> torch.Tensor:
        shared = {name: answering(kept[position], form) for name, (kept, form) in self.shared.items()}
        with replayed(layer, {**shared, **(answers or {})}):
            return self._engine.run(self.index, self._inputs[position], self._batches[position], layer=layer)
