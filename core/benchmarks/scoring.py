"""How well and how fast candidates are scored: estimates against exact scores, and both against running whole children.

    python core/benchmarks/scoring.py [MODEL] [--data TEXT] [--tokens 1024] [--layers 6] [--naive 3] [--json FILE]

Every candidate of the sampled layers is scored exactly (with the teacher's prefix reused) and estimated from gradients. Some
children are also written, loaded and run from start to end, as the reference, a system without reuse, does for every
candidate: the whole child, the teacher's kept hidden states once more through the head, and all metrics that it computes each
time (`full_metrics`). At last the search is run on either set of scores, and the KL of both children is measured. `cpu` is
process time, which a busy machine changes little.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from anyblock import convert_model
from anyblock.calibration.batches import Batches
from anyblock.calibration.packing import pack_text
from anyblock.calibration.sweep import HookPlan, sweep_importance
from anyblock.calibration.text import read_text
from anyblock.calibration.tokenizer import load_tokenizer
from anyblock.candidates.candidate import TEACHER, Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.candidates.library import list_candidates
from anyblock.candidates.no_op import NoOp
from anyblock.checkpoint.subblocks import SubblockCheckpoint, is_subblock_checkpoint
from anyblock.family import get_family
from anyblock.modeling.device import compute_dtype, stored_dtype
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.modeling.load import load_model
from anyblock.modeling.skeleton import load_hf_config
from anyblock.realize.realize import realize
from anyblock.scoring.estimate import correct, estimate_scores, rank_correlation, spread_sample
from anyblock.scoring.replace_one import CandidateScorer
from anyblock.scoring.swaps import ChildScorer
from anyblock.search import Budget, Group, Option, Problem, solve
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

ROOT = Path(__file__).parents[2]
HOOK = "IndependentChannelContributionHook"
KIND = "ffn_intermediate"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default=str(ROOT / "core" / "tests" / "assets" / "tiny-llama"))
    parser.add_argument("--data", default=str(ROOT / "demo" / "text" / "calibration.txt"))
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--block-size", type=int, default=256)
    parser.add_argument(
        "--layers", type=int, help="score the candidates of so many layers, evenly spread; all if not given"
    )
    parser.add_argument("--probes", type=int, default=4)
    parser.add_argument("--sample", type=int, default=16)
    parser.add_argument(
        "--share", type=float, default=0.8, help="of the sampled layers' parameters, for the two children"
    )
    parser.add_argument("--naive", type=int, default=3, help="children that are written, loaded and run whole")
    parser.add_argument("--dtype", default="auto", help="what is computed in: float32, bfloat16, or auto")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(arguments, Path(scratch))
    print(json.dumps({key: value for key, value in result.items() if key != "scores"}, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


class Case:
    """A teacher, its text and its candidates."""

    def __init__(self, arguments: argparse.Namespace, scratch: Path) -> None:
        source = Path(arguments.model)
        path = source if is_subblock_checkpoint(source) else convert_model(source, scratch / "teacher")
        self.teacher = SubblockCheckpoint.open(path)
        family = get_family(self.teacher.config["model_type"])
        self.dtype = compute_dtype(arguments.dtype, stored_dtype(load_hf_config(path)), torch.device("cpu"))
        self.engine = LayerwiseModel(self.teacher, family, dtype=self.dtype)
        text = pack_text(
            read_text(arguments.data), load_tokenizer(path), arguments.block_size, max_tokens=arguments.tokens
        )
        self.batches = Batches(text, 4)
        plan = HookPlan(KIND, HOOK, family.importance_hooks()[HOOK], family.pruning_mixins()[KIND])
        scores = sweep_importance(self.engine, [plan], self.batches)
        orders = {(int(key.split("|")[0]), KIND): (-value).argsort(stable=True) for key, value in scores.items()}
        self.weights = CandidateWeights(self.teacher, family, self.engine.config, orders)
        sizes = {KIND: lambda full: [full * part // 8 for part in range(1, 8)]}
        blocks = self.teacher.block_configs
        count = min(arguments.layers or len(blocks), len(blocks))
        layers = {round(place * (len(blocks) - 1) / max(count - 1, 1)) for place in range(count)}
        listed = list_candidates(family, self.engine.config, blocks, sizes, sources={"no_op": NoOp()})
        self.all = [candidate for candidate in listed if candidate.layer in layers]
        self.candidates = [candidate for candidate in self.all if candidate.kind != TEACHER]

    def best(self, scores: Mapping[str, float], share: float) -> list[Candidate]:
        """Return what the search chooses with these scores at a share of the sampled layers' parameters."""
        groups: dict[str, list[Option]] = {}
        for candidate in self.all:
            size = sum(tensor.numel() for tensor in self.weights.subblock(candidate).values())
            option = Option(candidate.label, scores.get(candidate.key, 0.0), {"params": size}, candidate.label)
            groups.setdefault(candidate.group, []).append(option)
        whole = sum(options[0].costs["params"] for options in groups.values())
        found = solve(
            Problem(
                tuple(Group(key, tuple(options)) for key, options in groups.items()),
                (Budget("params", upper=share * whole),),
            )
        )
        return [candidate for candidate in self.all if found.choices[candidate.group] == candidate.label]


def measure(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Return the figures by name."""
    case = Case(arguments, scratch)
    engine, candidates, weights, batches = case.engine, case.candidates, case.weights, case.batches
    estimates: dict[str, float] = {}
    exact: dict[str, float] = {}
    estimating = Measured(
        lambda: estimate_scores(
            engine, candidates, weights, batches, probes=arguments.probes, record=recording(estimates)
        )
    )
    scorer = CandidateScorer(engine, candidates, weights, batches)
    scoring = Measured(lambda: [exact.update(scorer.layer(layer)) for layer in range(engine.num_layers)])
    count = len(candidates)
    sample = spread_sample(candidates, estimates, arguments.sample)
    corrected = correct(
        estimates, {candidate.key: exact[candidate.key] for candidate in sample}, {c.key: c.half for c in candidates}
    )
    rest = [key for key in exact if key not in {candidate.key for candidate in sample}] or list(exact)
    errors = sorted(abs(corrected[key] / exact[key] - 1) for key in rest)
    naive = Naive(case, scratch)
    spread = candidates[:: max(1, count // max(arguments.naive, 1))][: arguments.naive]
    whole = Measured(lambda: [naive.score(candidate) for candidate in spread])
    each = {part: seconds / max(len(spread), 1) for part, seconds in naive.seconds.items()}
    scorer = ChildScorer(engine, engine, weights, batches, probes=1, seed=0)
    chosen = {name: case.best(scores, arguments.share) for name, scores in (("exact", exact), ("estimates", corrected))}
    final = {name: scorer.divergence(choice) for name, choice in chosen.items()}
    with_sample = estimating.cpu + scoring.cpu / count * len(sample)
    exact_one, naive_one = scoring.cpu / count, each["loading"] + each["running"] + each["metrics"]
    differences = {c.key: abs(naive.kl[c.key] - exact[c.key]) for c in spread}
    return {
        "candidates": count,
        "of layers": len({candidate.layer for candidate in candidates}),
        "layers": engine.num_layers,
        "tokens": batches.tokens,
        "dtype": str(case.dtype),
        "rank correlation, all candidates": rank_correlation([estimates[key] for key in exact], list(exact.values())),
        "rank correlation, candidates without an exact score": rank_correlation(
            [estimates[key] for key in rest], [exact[key] for key in rest]
        ),
        "the same after correction by the exact sample": rank_correlation(
            [corrected[key] for key in rest], [exact[key] for key in rest]
        ),
        "exact sample": len(sample),
        "median relative error after correction": errors[len(errors) // 2],
        "cpu seconds, estimates with probes": estimating.cpu,
        "cpu seconds, exact with reuse": scoring.cpu,
        "cpu seconds a candidate, loaded and run whole": naive_one,
        "cpu seconds a candidate, of that": each,
        "exact with reuse over estimates": scoring.cpu / estimating.cpu,
        "exact with reuse over estimates and their exact sample": scoring.cpu / with_sample,
        "operations: whole child over exact with reuse": whole.operations
        / max(len(spread), 1)
        / (scoring.operations / count),
        "operations: exact with reuse over estimates": scoring.operations / estimating.operations,
        "whole child over exact with reuse": naive_one / exact_one,
        "whole child without metrics, over exact with reuse": (each["loading"] + each["running"]) / exact_one,
        "whole child, written too, over exact with reuse": (naive_one + each["writing"]) / exact_one,
        "whole child over estimates": naive_one / (estimating.cpu / count),
        "whole child over estimates and their exact sample": naive_one / (with_sample / count),
        "largest difference between exact and whole children": max(differences.values(), default=0.0),
        "the same, relative": max((value / exact[key] for key, value in differences.items()), default=0.0),
        "scores": {key: [exact[key], estimates[key], corrected[key]] for key in exact},
        "final KL, exact scores": final["exact"],
        "final KL, estimates": final["estimates"],
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
    }


def recording(scores: dict[str, float]) -> Callable[[Candidate, float], None]:
    """Return a recorder into a dictionary."""

    def record(candidate: Candidate, score: float) -> None:
        scores[candidate.key] = score

    return record


class Measured:
    """Runs something at once: the processor seconds it took, and its floating-point operations in matrix products."""

    def __init__(self, work: Callable[[], object]) -> None:
        begin = time.process_time()
        with Operations() as counter:
            work()
        self.cpu = time.process_time() - begin
        self.operations = counter.total


class Operations(TorchDispatchMode):
    """Counts the operations of matrix products, backward passes included."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = function(*args, **(kwargs or {}))
        if formula := flop_registry.get(function._overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=output)
        return output


class Naive:
    """Replace-one without reuse: load a child, run all of it, and compute the full metrics.

    As the reference does, the teacher's last hidden states are kept and go through the head again for every child.
    """

    def __init__(self, case: Case, scratch: Path) -> None:
        self.case = case
        self.path = scratch / "child"
        self.kl: dict[str, float] = {}
        self.seconds = dict.fromkeys(("writing", "loading", "running", "metrics"), 0.0)
        self.prepared = [case.engine.prepare(ids) for ids in case.batches]
        self.head = case.engine.model.get_output_embeddings()
        self.hidden = []
        with torch.no_grad():
            for batch in self.prepared:
                hidden = batch.hidden
                for index in range(case.engine.num_layers):
                    hidden = case.engine.run(index, hidden, batch)
                self.hidden.append(case.engine.final_hidden(hidden, batch))

    @torch.no_grad()
    def score(self, candidate: Candidate) -> None:
        """Write one child, load it, and keep its KL by the candidate's key."""
        case = self.case
        with self._timed("writing"):
            realize(case.teacher, [candidate], case.weights, self.path, overwrite=True)
        with self._timed("loading"):
            model = load_model(self.path, dtype=case.dtype)
        total = 0.0
        for batch, hidden in zip(self.prepared, self.hidden, strict=True):
            with self._timed("running"):
                teacher = self.head(hidden)
                output = model(input_ids=batch.input_ids, use_cache=False, output_hidden_states=True)
            with self._timed("metrics"):
                for ids, t, c, th, ch in zip(
                    batch.input_ids, teacher, output.logits, hidden, output.hidden_states[-1], strict=True
                ):
                    full_metrics(t, c, th, ch, ids)
            # What scores are compared with: float32 sums over the vocabulary are off by more than is asked of them.
            for t, c in zip(teacher, output.logits, strict=True):
                t, c = t.double().log_softmax(-1), c.double().log_softmax(-1)
                total += float((t.exp() * (t - c)).sum())
        self.kl[candidate.key] = total / case.batches.tokens

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        begin = time.process_time()
        yield
        self.seconds[part] += time.process_time() - begin


def full_metrics(
    teacher: torch.Tensor,
    child: torch.Tensor,
    teacher_hidden: torch.Tensor,
    child_hidden: torch.Tensor,
    ids: torch.Tensor,
) -> dict[str, float]:
    """Return what the reference computes for every sequence of every candidate.

    Args:
        teacher, child: logits, [length, vocabulary].
        teacher_hidden, child_hidden: outputs of the final norm, [length, hidden].
        ids: the tokens, [length].
    """
    found: dict[str, float] = {}
    t, c = teacher.float().log_softmax(-1), child.float().log_softmax(-1)
    labels = ids[1:, None]
    found["lm_loss"] = float(-c[:-1].gather(1, labels).mean())
    leaders = child.topk(10, dim=-1).indices
    chosen = teacher.argmax(-1, keepdim=True)
    for count in (1, 5, 10):
        found[f"token_accuracy_top_{count}"] = float((leaders[:-1, :count] == labels).any(-1).float().mean())
        found[f"greedy_teacher_prediction_in_student_top_{count}"] = float(
            (leaders[:, :count] == chosen).any(-1).float().mean()
        )
    for name, mine, theirs in (("hidden_states", child_hidden, teacher_hidden), ("logits", child, teacher)):
        a, b = mine.float().flatten(), theirs.float().flatten()
        squared = (a - b).square().mean()
        found[f"cosine_embedding_loss_{name}"] = float(1 - nn.functional.cosine_similarity(a, b, dim=0))
        found[f"mse_loss_{name}"] = float(squared)
        found[f"normalized_mse_loss_{name}"] = float(squared / b.square().mean().clamp(min=1e-6))
        found[f"mae_loss_{name}"] = float((a - b).abs().mean())
    p, q = t.exp(), c.exp()
    middle = ((p + q) / 2).log()
    found["kl_div"] = float((p * (t - c)).sum(dtype=torch.float64)) / len(ids)
    found["js_div"] = float((p * (t - middle) + q * (c - middle)).sum(dtype=torch.float64)) / 2 / len(ids)
    found["tv_dist"] = float((p - q).abs().sum(dtype=torch.float64)) / 2 / len(ids)
    return found


if __name__ == "__main__":
    main()
