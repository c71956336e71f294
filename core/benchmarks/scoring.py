"""How well and how fast candidates are scored: estimates against exact scores, and both against running whole children.

    python core/benchmarks/scoring.py [MODEL] [--data TEXT] [--tokens 1024] [--naive 3] [--json FILE]

Every candidate is scored exactly (with the teacher's prefix reused) and estimated from gradients; some children are also
written, loaded and run from start to end, as a system without reuse does for every candidate. The three run one after the
other in one process; compare ratios, not seconds.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from anyblock import convert_model, evaluate
from anyblock.calibration.batches import Batches
from anyblock.calibration.sweep import HookPlan, sweep_importance
from anyblock.calibration.text import pack_text, read_text
from anyblock.calibration.tokenizer import load_tokenizer
from anyblock.candidates.candidate import Candidate
from anyblock.candidates.library import list_candidates
from anyblock.candidates.views import CandidateWeights
from anyblock.checkpoint.subblocks import SubblockCheckpoint, is_subblock_checkpoint
from anyblock.family import get_family
from anyblock.modeling.device import compute_dtype, stored_dtype
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.modeling.skeleton import load_hf_config
from anyblock.realize.realize import realize
from anyblock.scoring.estimate import correct, estimate_scores, rank_correlation, sample_for_exact
from anyblock.scoring.replace_one import score_candidates

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
    parser.add_argument("--probes", type=int, default=4)
    parser.add_argument("--sample", type=int, default=16)
    parser.add_argument("--naive", type=int, default=3, help="children that are written, loaded and run whole")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(arguments, Path(scratch))
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def measure(arguments: argparse.Namespace, scratch: Path) -> dict[str, float | str | int]:
    """Return the figures by name."""
    source = Path(arguments.model)
    path = source if is_subblock_checkpoint(source) else convert_model(source, scratch / "teacher")
    teacher = SubblockCheckpoint.open(path)
    family = get_family(teacher.config["model_type"])
    dtype = compute_dtype("auto", stored_dtype(load_hf_config(path)), torch.device("cpu"))
    engine = LayerwiseModel(teacher, family, dtype=dtype)
    tokenizer = load_tokenizer(path)
    text = pack_text(read_text(arguments.data), tokenizer, arguments.block_size, max_tokens=arguments.tokens)
    batches = Batches(text, 4)
    plan = HookPlan(KIND, HOOK, family.importance_hooks()[HOOK], family.pruning_mixins()[KIND])
    scores = sweep_importance(engine, [plan], batches)
    orders = {(int(key.split("|")[0]), KIND): (-value).argsort(stable=True) for key, value in scores.items()}
    weights = CandidateWeights(teacher, family, engine.config, orders)
    sizes = {KIND: lambda full: [full * part // 8 for part in range(1, 8)]}
    listed = list_candidates(family, engine.config, teacher.block_configs, sizes, ["attention", "ffn"])
    candidates = [candidate for candidate in listed if candidate.kind != "teacher"]

    estimates: dict[str, float] = {}
    exact: dict[str, float] = {}
    estimating = timed(
        lambda: estimate_scores(
            engine, candidates, weights, batches, probes=arguments.probes, record=recording(estimates)
        )
    )
    scoring = timed(lambda: score_candidates(engine, candidates, weights, batches, record=recording(exact)))
    keys = list(exact)
    sample = sample_for_exact(candidates, estimates, arguments.sample)
    corrected = correct(estimates, {candidate.key: exact[candidate.key] for candidate in sample})
    rest = [key for key in keys if key not in {candidate.key for candidate in sample}]
    errors = sorted(abs(corrected[key] / exact[key] - 1) for key in rest)
    spread = candidates[:: max(1, len(candidates) // max(arguments.naive, 1))][: arguments.naive]
    naive = 0.0
    difference = 0.0
    for candidate in spread:
        begin = time.perf_counter()
        child = realize(teacher, [candidate], weights, scratch / "child", overwrite=True)
        result = evaluate(child, data=batches, teacher=path, dtype=dtype)
        naive += time.perf_counter() - begin
        assert result.kl_per_token is not None
        difference = max(difference, abs(result.kl_per_token - exact[candidate.key]))
    sampled = scoring / len(candidates) * len(sample)
    return {
        "candidates": len(candidates),
        "layers": engine.num_layers,
        "tokens": text.numel(),
        "dtype": str(dtype),
        "rank correlation, all candidates": rank_correlation(
            [estimates[key] for key in keys], [exact[key] for key in keys]
        ),
        "median relative error after correction": errors[len(errors) // 2],
        "seconds, estimates with probes": estimating,
        "seconds, exact with reuse": scoring,
        "seconds a candidate, written and run whole with its teacher": naive / max(len(spread), 1),
        "exact with reuse over estimates": scoring / estimating,
        "exact with reuse over estimates and their exact sample": scoring / (estimating + sampled),
        "whole children over exact with reuse": (naive / max(len(spread), 1)) / (scoring / len(candidates)),
        "whole children over estimates and their exact sample": (naive / max(len(spread), 1))
        / ((estimating + sampled) / len(candidates)),
        "largest difference between exact and whole children": difference,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
    }


def recording(scores: dict[str, float]) -> Callable[[Candidate, float], None]:
    """Return a recorder into a dictionary."""

    def record(candidate: Candidate, score: float) -> None:
        scores[candidate.key] = score

    return record


def timed(work: Callable[[], None]) -> float:
    """Return the seconds that something takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
