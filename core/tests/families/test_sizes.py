"""What a run may ask of a family: illegal sizes are refused with the nearest legal ones, and kinds that it lacks by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from anyblock.config import RunConfig
from anyblock.config.pruning import CORE_KINDS
from anyblock.errors import AnyBlockError, ConfigError, UnsupportedModelError, UsageError
from anyblock.family import get_family
from anyblock.run.model_source import Source, read_source
from anyblock.stages.candidates import CostedCandidates, plan_candidates
from anyblock.stages.narrow_teacher import narrowed_source
from anyblock_conformance.tiny import save_tiny


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Source]:
    """Return a function that gives a family's tiny model."""
    made: dict[str, Source] = {}

    def get(model_type: str) -> Source:
        if model_type not in made:
            folder = tmp_path_factory.mktemp(model_type) / "model"
            made[model_type] = read_source(save_tiny(get_family(model_type).conformance_config(), folder))
        return made[model_type]

    return get


def planned(source: Source, pruning: dict[str, Any]) -> CostedCandidates:
    """What a run with this `pruning` section does before anything is written."""
    config = RunConfig.model_validate({"model": str(source.path), "output": "child", "pruning": pruning})
    return plan_candidates(config, narrowed_source(config, source), source)


# tiny models: 4 query and 2 key-value heads, 48 channels, 32 hidden; 4 experts with a top-k of 2, of 16 channels
ILLEGAL = [
    ("llama", {"ffn": {"sizes": [64]}}, "ffn_intermediate: a size of 64 .*the teacher has 48", "48"),
    ("llama", {"kv_heads": {"sizes": [3]}}, "kv_heads: a size of 3 .*the teacher has 2", "2"),
    ("llama", {"query_groups": {"sizes": [3]}}, "query_groups: a size of 3 .*the teacher has 2", "2"),
    ("llama", {"kv_heads": {"heads_per_group": [3]}}, "heads_per_group has 3, .* 4 query heads", "2 or 4"),
    ("llama", {"hidden_size": {"sizes": [40]}}, "hidden_size: a size of 40 .*the teacher has 32", "32"),
    ("mixtral", {"experts_removal": {"sizes": [1]}}, "experts_removal: a size of 1 ", "2"),
    ("mixtral", {"experts_removal": {"sizes": [5]}}, "experts_removal: a size of 5 .*the teacher has 4", "4"),
    ("mixtral", {"expert_intermediate": {"sizes": [9]}}, "expert_intermediate: a size of 9 ", "8 or 16"),
    ("deepseek_v3", {"query_groups": {"sizes": [5]}}, "query_groups: a size of 5 .*the teacher has 4", "4"),
    ("deepseek_v3", {"experts_removal": {"sizes": [5]}}, "experts_removal: a size of 5 ", "4 or 6"),
    ("nemotron_h", {"mamba_heads": {"sizes": [3]}}, "mamba_heads: a size of 3 ", "2 or 4"),
]


@pytest.mark.parametrize(("model_type", "pruning", "text", "near"), ILLEGAL)
def test_an_illegal_size_is_refused_with_the_nearest_legal_ones(
    source: Callable[[str], Source], model_type: str, pruning: dict[str, Any], text: str, near: str
) -> None:
    """Not divisible, larger than the teacher, fewer experts than the top-k, rows that kernels cannot run."""
    with pytest.raises((UsageError, ConfigError), match=text) as caught:
        planned(source(model_type), pruning)
    assert caught.value.hint.endswith(f" is {near}"), caught.value.hint


def test_every_kind_of_core_has_a_case_above() -> None:
    """A kind that is added needs one."""
    assert set(CORE_KINDS.values()) == {key for _, pruning, _, _ in ILLEGAL for key in pruning}


LACKING = [
    (
        "llama",
        {"experts_removal": {"sizes": [0.5]}},
        "pruning.experts_removal: the adapter of llama has no .*ffn_intermed",
    ),
    ("llama", {"mamba_heads": {"sizes": [0.5]}}, "pruning.mamba_heads: the adapter of llama has no pruning kind"),
    ("mixtral", {"ffn": {"sizes": [0.5]}}, "pruning.ffn: .*ffn_intermediate"),
    ("deepseek_v3", {"kv_heads": {"sizes": [0.5]}}, "pruning.kv_heads: the adapter of deepseek_v3 has no pruning kind"),
]


@pytest.mark.parametrize(("model_type", "pruning", "text"), LACKING)
def test_a_kind_that_is_asked_for_and_lacking_is_an_error_that_says_what_there_is(
    source: Callable[[str], Source], model_type: str, pruning: dict[str, Any], text: str
) -> None:
    """Nothing that a user writes is dropped silently."""
    with pytest.raises(UnsupportedModelError, match=f"(?s){text}") as caught:
        planned(source(model_type), pruning)
    error: AnyBlockError = caught.value
    family = get_family(model_type)
    offered = {*family.pruning_mixins(), *(["hidden_size"] if family.residual_stream() else [])}
    assert set(error.expected.removeprefix("one of ").split(", ")) <= offered


def test_a_default_that_does_not_apply_is_left_out(source: Callable[[str], Source]) -> None:
    """Widths of dense ffns are offered by default, and Mixtral has none."""
    kinds = {candidate.kind for candidate in planned(source("mixtral"), {"kv_heads": {"sizes": [1]}}).candidates}
    assert kinds == {"teacher", "no_op", "kv_heads"}
