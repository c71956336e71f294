"""Search: does a whole compression work?"""

from __future__ import annotations

from typing import Any

import torch
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.config import load_config
from anyblock.costs.cost_model import Scenario, fixed_costs, model_costs
from anyblock.modeling.load import load_model
from anyblock.pipeline.compress import CompressResult, compress

from anyblock_conformance.check import check
from anyblock_conformance.expect import equal, that
from anyblock_conformance.kinds import claimed_kinds, smaller_sizes, works_on
from anyblock_conformance.serving import serving
from anyblock_conformance.subject import Subject, logits

_SHARE = 0.6
_SECTIONS = {"ffn_intermediate": "ffn"}


@check(
    "search.compress",
    capability="search",
    needs="tiny",
    depends_on=["prune.mixed-child", "prune.kept-units", "prune.costs", "prune.cache-costs"],
)
def check_compress(subject: Subject) -> None:
    """A small run ends with a child under the budget, which loads.

    Why: this is what users do. It uses every hook together: text, importance, candidates, scores, search, repair, child.

    How to fix: run the other checks first; the message here comes from the stage that failed. Importance hooks have to
    take batches of different sizes, since the last one is often smaller.
    """
    result, limit = subject.memo("compressed", lambda: _run(subject, seed=1))
    model = load_model(result.child.path, family=subject.family)
    counted = sum(tensor.numel() for tensor in {id(t): t for t in model.state_dict(keep_vars=True).values()}.values())
    that(counted <= limit, f"the child has {counted:,} parameters, and the budget was {limit:,}")
    equal(
        result.solution.costs["params"], counted, "the parameters that the search reckoned with (counted in the child)"
    )
    that(bool(logits(model, subject.ids).isfinite().all()), "the child's logits are not finite")
    differ = [i for i, block in enumerate(result.child.block_configs) if block != subject.blocks[i]]
    that(bool(differ), "no layer of the child differs from the teacher's")


@check("search.reproducible", capability="search", needs="tiny", depends_on=["search.compress"])
def check_reproducible(subject: Subject) -> None:
    """Two runs with the same inputs give the same child, bit for bit.

    Why: a run that is interrupted continues from what it has kept, which is only right if it would come to the same again.

    How to fix: use no random numbers in hooks and mixins, or a generator with a fixed seed; iterate over sets in sorted
    order.
    """
    first, _ = subject.memo("compressed", lambda: _run(subject, seed=1))
    again, _ = _run(subject, seed=2, evaluate=False)
    equal(again.solution.choices, first.solution.choices, "the candidates that a second run chose")
    equal(_bits(again.child), _bits(first.child), "the fingerprint of the second run's child")


def _run(subject: Subject, *, seed: int, evaluate: bool = True) -> tuple[CompressResult, int]:
    """Compress the tiny model to 60 % of what can be removed, on random words; returns the result and the budget."""
    folder = subject.place("run")
    folder.mkdir()
    torch.manual_seed(seed)
    words = subject.tokens(1, 400, seed=9)[0].tolist()
    lines = [" ".join(f"w{word}" for word in words[begin : begin + 20]) for begin in range(0, len(words), 20)]
    (folder / "text.txt").write_text("\n".join(lines) + "\n")
    checkpoint, scenario = subject.converted, Scenario()
    shapes = {group: checkpoint.meta(group) for group in checkpoint.groups}
    total = model_costs(subject.family, subject.config, subject.blocks, shapes, scenario).params
    fixed = int(fixed_costs(subject.family, subject.config, shapes, subject.num_layers, scenario)["params"])
    limit = fixed + int((total - fixed) * _SHARE)
    config = load_config(
        None,
        [],
        {
            "model": str(subject.source),
            "output": str(folder / "child"),
            "device": "cpu",
            "data": {
                "path": str(folder / "text.txt"),
                "block_size": 16,
                "calibration_tokens": 112,
                "scoring_tokens": 48,
                "evaluation_tokens": 48,
                "batch_size": 4,
            },
            "evaluation": {"enabled": evaluate},
            "pruning": _pruning(subject),
            # One round of refinement is all of its code; more of them are more of the same.
            "search": {"budget": {"params": limit}, "length": 32, "generated": 8, "refine_rounds": 1},
        },
    )
    with serving(subject.family):
        return compress(config), limit


def _pruning(subject: Subject) -> dict[str, Any]:
    """Return the run's `pruning` section: a size in the middle for every kind that the adapter stands for."""
    offered: dict[str, Any] = {}
    for kind in claimed_kinds(subject):
        possible = [set(smaller_sizes(subject, kind, layer)) for layer in works_on(subject, kind)]
        sizes = sorted(set.intersection(*possible)) if possible else []
        if sizes:
            section = {"sizes": [sizes[len(sizes) // 2]], "hook": None}
            offered[_SECTIONS.get(kind, kind)] = section
    return offered


def _bits(checkpoint: SubblockCheckpoint) -> str:
    return checkpoint.fingerprint()
