"""What the guide's words mean here: constraints, objectives, labels of hooks, lists of sizes, and fixed values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PRUNING_ONLY: Final = frozenset({"pruning_mixin", "hook_class", "activation_hooks_kwargs"})
"""Keys by which a file that holds nothing but the guide's `pruning` section is known."""

CONSTRAINTS: Final[Mapping[str, tuple[str, str]]] = {
    "target_memory": ("memory", "MiB"),
    "target_latency_seconds": ("latency", "s"),
    "target_throughput": ("throughput", "tok/s"),
    "num_params": ("params", ""),
    "stats.memory_mib": ("memory", "MiB"),
    "stats.kv_cache_memory_mib": ("kv_memory", "MiB"),
    "stats.num_params": ("params", ""),
    "stats.active_params": ("active_params", ""),
    "stats.runtime_ms": ("latency", "ms"),
    "stats.num_kv_heads": ("kv_heads", ""),
    "stats.num_local_experts": ("experts", ""),
    "stats.has_attention": ("attention_layers", ""),
    "stats.has_ffn": ("ffn_layers", ""),
}
"""`{constraint of the reference: (cost here, unit)}`."""
OBJECTIVES: Final[Mapping[str, str]] = {
    "metrics.cosine_embedding_loss_hidden_states": "cosine",
    "metrics.kl_div": "kl",
    "metrics.lm_loss": "lm_loss",
}
"""`{objective of the reference: score metric here}`."""
METHODS: Final[Mapping[str, tuple[str, str]]] = {
    "iterative": ("IterativeChannelContributionHook", "ffn_intermediate"),
    "independent": ("IndependentChannelContributionHook", "ffn_intermediate"),
    "independent_kv_head_contribution": ("IndependentKvHeadContributionHook", "kv_heads"),
    "layer_norm_contribution": ("LayerNormContributionHook", "hidden_size"),
    "ranked_choice_voting": ("RankedChoiceVotingHook", "experts_removal"),
}
"""`{label in activation_hooks_kwargs.method: (hook, kind of pruning)}`, for files that name neither."""
SIZE_LISTS: Final[Mapping[str, tuple[str, ...]]] = {
    "intermediate_size_list": ("ffn_intermediate", "expert_intermediate"),
    "n_heads_in_group_list": ("kv_heads", "query_groups"),
    "num_experts_to_keep_list": ("experts_removal",),
    "hidden_size_list": ("hidden_size",),
}
"""`{list of sizes: kinds of pruning it can belong to}`, the first where no mixin says which."""
_TRUNCATE: Final = {"Truncate": "truncate"}
INIT_MODES: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "ffn_intermediate": ("mlp_init_mode", {"PruneByActivationsLog": "importance", **_TRUNCATE}),
    "expert_intermediate": (
        "mlp_init_mode",
        {"PruneByActivationsLog": "importance", "MoEChannelPruning": "importance", **_TRUNCATE},
    ),
    "experts_removal": ("mlp_init_mode", {"ExpertRemoval": "importance", **_TRUNCATE}),
    "kv_heads": ("gqa_init_mode", {"PruneKVHeads": "importance", "AverageKV": "average", "FirstKV": "first"}),
    "query_groups": ("gqa_init_mode", {"PruneKVHeads": "importance"}),
    "hidden_size": ("hidden_size_init_mode", {"PruneByChannelRanking": "importance", **_TRUNCATE}),
}
"""`{kind of pruning: (key, {its value: the kind's init here})}`."""
REFUSED_MODES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("Random", "RandomKV", "RandomBlock"), "nothing is trained here, so random weights would stay"),
    "CopyAsIs": "it copies a half of the teacher's own size, which is offered in any case",
    "Degrouping": "it makes more key-value heads, and a child has at most the teacher's",
    "ConcatExpertsIntoDenseFFN": "the reference has no run that uses it either",
}
"""`{mode of the reference that is not here: why}`."""
FIXED: Final[Mapping[str, tuple[object, str]]] = {
    "mip.bigger_is_better": (False, "scores measure harm here, so the smallest is looked for"),
    "skip_realize_model": (False, "`anyblock search` looks for a child without writing it"),
    "realize_model.save_models": (True, "`anyblock search` looks for a child without writing it"),
    "pruning.mlp_init_config_yaml.higher_is_better": (True, "every score here is higher for what matters more"),
    "pruning.mlp_init_config_yaml.scale_pruned_weights": (False, "use pruning.repair instead"),
    "mip.metric_overrides": (None, "AnyBlock has no such setting"),
    "mip.puzzle_profile": (None, "AnyBlock has no such setting"),
}
"""`{key: (its only value that has a meaning here, what to do otherwise)}`."""
SWITCHED_OFF: Final[Mapping[str, str]] = {
    "bypass": "blocks are not trained here; see pruning.repair",
    "mip.sweep": "use `anyblock search` for further budgets",
}
"""`{section that must be empty or have enabled: false: what to do otherwise}`."""
