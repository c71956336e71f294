"""Published models, by their configuration alone: an adapter's numbers for them are the published ones.

No weight is needed. transformers says which tensors the checkpoint has and in which shapes; a file with such a header and
nothing but holes after it stands for the real one.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from anyblock.candidates.candidate import child_blocks
from anyblock.checkpoint.dtypes import safetensors_dtype
from anyblock.checkpoint.layout import byte_size
from anyblock.config import load_config
from anyblock.config.pruning import CORE_KINDS
from anyblock.costs.cost_model import Scenario, model_costs
from anyblock.modeling.skeleton import build_skeleton, load_hf_config
from anyblock.run.model_source import Source, read_source
from anyblock.search.solve import solve
from anyblock.stages.candidates import plan_candidates
from anyblock.stages.search import build_problem, chosen_candidates

from anyblock_conformance.expect import equal, nothing, that
from anyblock_conformance.headers import Shape
from anyblock_conformance.run import run_checkpoint

_BYTES: Final = 2


@dataclass(frozen=True)
class Published:
    """A published model and what is known about it.

    Attributes:
        name: its name.
        config: the content of its `config.json`, as far as it is about the architecture.
        params: its parameters as published, tied ones once.
        kv_bytes: bytes of the key-value cache in bfloat16 of `batch` sequences of `length` tokens.
        batch, length: for `kv_bytes`.
        budget: budgets under which a plan is to be found, as in a run's configuration.
        slow: whether the test is to be marked `slow`.
        stored: turns the tensors of the model into those of the published files, where these are quantized or hold more.
    """

    name: str
    config: Mapping[str, Any]
    params: int
    kv_bytes: int
    batch: int = 1
    length: int = 4096
    budget: Mapping[str, str] = field(default_factory=lambda: {"params": "0.75x", "kv_memory": "0.75x"})
    slow: bool = False
    stored: Callable[[dict[str, Shape]], Mapping[str, Shape]] = lambda shapes: shapes


def published_tests(models: Sequence[Published]) -> Callable[[Published, Path], None]:
    """Return a test function for pytest with one case for every model."""
    import pytest

    cases = [pytest.param(model, id=model.name, marks=[pytest.mark.slow] * model.slow) for model in models]

    @pytest.mark.parametrize("model", cases)
    def test_published(model: Published, tmp_path: Path) -> None:
        check_published(model, tmp_path)

    return test_published


def check_published(model: Published, folder: Path) -> None:
    """Fail unless the installed adapter has a place for every tensor, the published numbers, and a plan under budget.

    Args:
        model: the model.
        folder: an existing, empty directory.

    Raises:
        CheckFailedError: says what differs.
    """
    path = folder / "model"
    own = write_published(model, path)
    report = run_checkpoint(path, levels=["structure"])
    nothing([f"{result.id}: {result.message}" for result in report.results if result.outcome.is_failure], model.name)
    scenario = Scenario(batch_size=model.batch, length=model.length, cache_dtype="bfloat16")
    source = read_source(path)
    costs = model_costs(source.family, source.config, source.block_configs, source.shapes, scenario)
    equal(costs.params, model.params, f"the parameters of {model.name}")
    weight_bytes = sum(byte_size(shape.dtype, shape.sizes or ()) for shape in own.values())
    equal(costs.total["weight_memory"], weight_bytes, f"the weight bytes of {model.name} as it computes")
    equal(costs.total["kv_memory"], model.kv_bytes, f"the cache of {model.name}")
    _check_plan(model, source, folder)


def write_published(model: Published, folder: Path) -> dict[str, Shape]:
    """Write the model's configuration and a checkpoint with the names and shapes of the published one, full of holes.

    Returns:
        Every tensor as the model computes with it, see `stored_shapes`.
    """
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(dict(model.config)))
    entries, position = {}, 0
    own = stored_shapes(load_hf_config(folder))
    for name, shape in model.stored(dict(own)).items():
        sizes = shape.sizes or ()
        size = byte_size(shape.dtype, sizes)
        entries[name] = {"dtype": shape.dtype, "shape": list(sizes), "data_offsets": [position, position + size]}
        position += size
    header = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    header += b" " * (-len(header) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + position)
    return own


def stored_shapes(config: Any) -> dict[str, Shape]:
    """Return every tensor in the checkpoint of a model with this configuration, by its name there, in bfloat16.

    What the model wants in float32 whatever its own type is in float32.
    """
    from transformers.core_model_loading import revert_weight_conversion

    model = build_skeleton(None, config, (), dtype=torch.bfloat16)
    tied = set(model.all_tied_weights_keys)
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    return {
        name: Shape(safetensors_dtype(tensor.dtype), tuple(tensor.shape))
        for name, tensor in revert_weight_conversion(model, state).items()
    }


def _check_plan(model: Published, source: Source, folder: Path) -> None:
    offered = {CORE_KINDS[kind]: {"sizes": sizes, "hook": None} for kind, sizes in _half_sizes(source).items()}
    config = load_config(
        None,
        [],
        {
            "model": str(source.path),
            "output": str(folder / "child"),
            "pruning": offered,
            "search": {"budget": dict(model.budget), "batch": model.batch, "length": model.length},
        },
    )
    costed = plan_candidates(config, source, source)
    # A candidate hurts the more the more it removes, and in some layers more than in others.
    scores = {
        candidate.key: (1 + zlib.crc32(candidate.group.encode()) % 7) * (2 if candidate.size == 0 else 1)
        for candidate in costed.to_score
    }
    solution = solve(build_problem(costed, scores, config.search.bounds()), gap=1e-2)
    blocks = child_blocks(source.block_configs, chosen_candidates(costed, solution))
    that(blocks != source.block_configs, f"the plan for {model.name} removes nothing")
    for name, share in model.budget.items():
        limit = float(share.removesuffix("x")) * costed.reference[name]
        that(
            solution.costs[name] <= limit,
            f"{name} of the plan for {model.name} is {solution.costs[name]}, over {limit}",
        )
    child = build_skeleton(source.family, load_hf_config(source.path), blocks)
    counted = sum(tensor.numel() for tensor in {id(t): t for t in child.state_dict(keep_vars=True).values()}.values())
    equal(
        solution.costs["params"], counted, f"the parameters of the plan for {model.name} (counted in the built child)"
    )
    specs = [source.family.cache_spec(source.config, block, index) for index, block in enumerate(blocks)]
    cached = sum(spec.bytes(model.length, _BYTES) for spec in specs)
    equal(solution.costs["kv_memory"], model.batch * cached, f"the cache of the plan for {model.name}")


def _half_sizes(source: Source) -> dict[str, list[int]]:
    """Return, for every kind that shrinks one half of a block, the largest legal sizes up to half of the teacher's."""
    found: dict[str, list[int]] = {}
    for kind, mixin in source.family.pruning_mixins().items():
        blocks = {block for block in source.block_configs if mixin.applies_to(block)}
        legal = {block: mixin.legal_sizes(block, source.text_config) for block in blocks}
        halves = {max((s for s in sizes if 2 * s <= mixin.size(block)), default=None) for block, sizes in legal.items()}
        if kind in CORE_KINDS and (sizes := sorted(size for size in halves if size is not None)):
            found[kind] = sizes
    return found
