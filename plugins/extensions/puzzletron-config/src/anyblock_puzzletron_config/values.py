"""The guide's single values: which model, how much text, for which use, scored how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from anyblock.contract.config_tree import split_key
from anyblock.errors import ConfigError, nearest

from anyblock_puzzletron_config.aliases import REFERENCE_FAMILIES
from anyblock_puzzletron_config.budget import constraint_entries
from anyblock_puzzletron_config.tables import OBJECTIVES
from anyblock_puzzletron_config.translation import Translation
from anyblock_puzzletron_config.walk import lookup

_DTYPES: Final = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_SAMPLES: Final = {
    "pruning.eval_samples": "calibration_tokens",
    "scoring.eval_samples": "scoring_tokens",
    "realize_model.eval_samples": "evaluation_tokens",
}
_LENGTHS: Final = ("calc_subblock_stats.prefill_seq_len", "calc_subblock_stats.generation_seq_len")
_SCENARIO: Final = "mip.subblock_stats_args"


def tokens(guide: Translation) -> None:
    """Turn numbers of samples into numbers of tokens."""
    own = lookup(guide.result.data, ("data", "block_size"))[1]
    sizes = (own, guide.get("pruning.block_size"), _default_block_size(guide))
    size = next(found for found in sizes if isinstance(found, int))
    for key, target in _SAMPLES.items():
        samples = guide.get(key)
        if samples is None:
            continue
        if not isinstance(samples, int):
            raise ConfigError(f"{guide.place(key)} is {samples!r}", expected="a number of samples")
        guide.put(("data", target), samples * size, key)


def _default_block_size(guide: Translation) -> int:
    data: Any = guide.tools.schema.model_fields["data"].annotation
    return int(data().block_size)


def lengths(guide: Translation) -> None:
    """Add the lengths of prompt and answer up."""
    found = [guide.get(key) for key in _LENGTHS]
    if found == [None, None]:
        return
    if not all(isinstance(length, int) for length in found):
        raise ConfigError(
            f"{guide.place(_LENGTHS[0])} is {found[0]!r}, {guide.place(_LENGTHS[1])} is {found[1]!r}",
            expected="two numbers of tokens",
        )
    guide.put(("search", "length"), sum(found), _LENGTHS[0])
    guide.put(("search", "generated"), found[1], _LENGTHS[1])


def scenario(guide: Translation) -> None:
    """Take the batch and the cache's dtype from the one scenario that the guide's search selects."""
    chosen = guide.get(_SCENARIO)
    batches = guide.get("calc_subblock_stats.batch_sizes")
    if chosen is None:
        if isinstance(batches, list) and len(batches) == 1:
            guide.put(("search", "batch"), batches[0], "calc_subblock_stats.batch_sizes")
        return
    if not isinstance(chosen, list) or len(chosen) != 1 or not isinstance(chosen[0], dict):
        raise ConfigError(f"{guide.place(_SCENARIO)} is {chosen!r}", expected="a list with one mapping")
    batch, dtype = chosen[0].get("batch_size"), chosen[0].get("kv_cache_dtype")
    if batch is not None:
        guide.put(("search", "batch"), batch, f"{_SCENARIO}[0].batch_size")
    if dtype is not None:
        guide.put(("search", "cache_dtype"), _dtype_name(dtype), f"{_SCENARIO}[0].kv_cache_dtype")


def budgets(guide: Translation) -> None:
    """Turn constraints into budgets.

    Raises:
        ConfigError: both kinds of constraints are given, or one has no meaning here.
    """
    given = [key for key in ("mip.human_constraints", "mip.mip_constraints") if guide.get(key)]
    if len(given) == 2:
        raise ConfigError(
            f"{guide.place(given[0])} contradicts {guide.place(given[1])}",
            expected="one of the two",
            hint="the reference uses mip_constraints alone when both are there",
        )
    for key in given:
        entries = list(constraint_entries(guide.get(key), split_key(key), guide.tree))
        places = {guide.tree.place(path): path for _, path in entries}
        merged = guide.tools.merge_budgets((entry, guide.tree.place(path)) for entry, path in entries)
        for cost, (value, place) in merged.items():
            guide.put(("search", "budget", cost), value, places[place])


def _dtype_name(value: Any) -> str:
    name = str(value).removeprefix("torch.")
    return _DTYPES.get(name, name)


def _dtype(guide: Translation, key: str) -> str:
    return _dtype_name(guide.get(key))


def check_family(guide: Translation) -> None:
    """Check that `descriptor` names the family of the model, where the model is on this machine.

    Raises:
        ConfigError: it names another one.
    """
    named, own = guide.text("descriptor"), guide.tools.local_model_type(lookup(guide.result.data, ("model",))[1])
    if named is not None and own is not None and REFERENCE_FAMILIES.get(named, named) != own:
        raise ConfigError(
            f"{guide.place('descriptor')} is {named!r}, and the model's config.json has the model_type {own!r}",
            expected="the descriptor of the model's own family, or none",
        )


def _objective(guide: Translation, key: str) -> str:
    value = str(guide.get(key))
    if value not in OBJECTIVES:
        raise ConfigError(
            f"{guide.place(key)} is {value!r}", expected=", ".join(OBJECTIVES), hint=nearest(value, OBJECTIVES)
        )
    return OBJECTIVES[value]


def _opposite(guide: Translation, key: str) -> Any:
    value = guide.get(key)
    return not value if isinstance(value, bool) else value


CONVERSIONS: Final[dict[str, Callable[[Translation, str], Any]]] = {
    **dict.fromkeys(
        (
            "input_hf_model_path",
            "puzzle_dir",
            "dataset_path",
            "build_replacement_library.add_ffn_no_ops",
            "build_replacement_library.add_attention_no_ops",
            "pruning.block_size",
            "pruning.micro_batch_size",
            "scoring.seed",
            "mip.max_seconds_per_solution",
            "mip.num_solutions",
            "mip.minimal_diversity",
        ),
        Translation.get,
    ),
    "mip.objective": _objective,
    "realize_model.skip_validation": _opposite,
    "pruning.model_dtype": _dtype,
}
"""Keys whose value, perhaps converted, goes to one key here: the one that `GUIDE_KEYS` names."""
