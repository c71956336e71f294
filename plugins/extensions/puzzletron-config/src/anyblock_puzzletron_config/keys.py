"""The keys of the guide's configuration files, and what becomes of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Key:
    """One key, or a whole section, of the guide's files.

    Attributes:
        ours: the key here to which the value goes, as it is or converted; empty when it goes nowhere.
        doc: how it is converted, which values are accepted, or why it has no effect.
        has_no_effect: it is accepted whatever its value is, and named in a note.
    """

    ours: str = ""
    doc: str = ""
    has_no_effect: bool = False


PATHS: Final = "the run folder has its own layout"
LABELS: Final = "it labels folders of the reference"
DATA: Final = "the text file is read as it is"
DEVICES: Final = "there is one process"
STATS: Final = "costs are computed from the tensors"
LEGACY: Final = "the reference does not use it for this kind of pruning either"
ONE_VALUE: Final = "one setting serves the whole run"


def _ignored(reason: str, *names: str, under: str = "") -> dict[str, Key]:
    return {f"{under}{name}": Key(doc=reason, has_no_effect=True) for name in names}


GUIDE_KEYS: Final[Mapping[str, Key]] = {
    "input_hf_model_path": Key("model"),
    "puzzle_dir": Key("run_dir", "The run folder; `output` becomes `child` in it unless it is given."),
    "descriptor": Key(
        doc="Checked where the model is on this machine: it must be the model's own `model_type`. `mistral_small`, "
        "`nemotron_h_v2` and `qwen3_vl` stand for `mistral`, `nemotron_h` and `qwen3_vl_moe`."
    ),
    "dataset_path": Key("data.path", "A file or folder of text, or of a data set that was saved on disk."),
    **_ignored(PATHS, "teacher_dir", "replacement_library_path"),
    **_ignored(DEVICES, "nccl_timeout_minutes"),
    **_ignored("it is about the reference's logging", "hydra"),
    "skip_realize_model": Key(doc="Only `false`; `anyblock search` looks for a child without writing it."),
    "bypass": Key(doc="Only when it is empty or switched off; there is no training of blocks here."),
    "build_replacement_library.add_ffn_no_ops": Key("pruning.ffn.no_op"),
    "build_replacement_library.add_attention_no_ops": Key("pruning.attention.no_op"),
    # Which pruning, and with which hook.
    "pruning.pruning_mixin._target_": Key("pruning", "The kind of pruning, below which the following keys go."),
    "pruning.pruning_mixin.layer_descriptor._target_": Key(
        doc="Checked: it must be the family's own, which is used in any case."
    ),
    "pruning.pruning_mixin.layer_descriptor.target_name": Key("pruning.KIND.target"),
    "pruning.hook_class": Key("pruning.KIND.hook", "`${get_object:...}` or a name; no `extra_hooks` then."),
    "pruning.activation_hooks_kwargs.method": Key(
        "pruning.KIND.hook", "Names the hook where there is no `hook_class`, and is a label otherwise."
    ),
    "pruning.activation_hooks_kwargs.target_layer": Key("pruning.KIND.target"),
    "pruning.activation_hooks_kwargs.optimize_for": Key("pruning.KIND.hook_options.optimize_for"),
    "pruning.activation_hooks_kwargs.calibration_method": Key("pruning.KIND.hook_options.calibration_method"),
    "pruning.activation_hooks_kwargs": Key("pruning.KIND.hook_options", "Any other option of the hook."),
    **_ignored(
        "the hooks here need no such setting",
        "clear_gpu_memory",
        "layer_input_descriptors_path",
        "validation_full_iters",
        under="pruning.activation_hooks_kwargs.",
    ),
    "pruning.intermediate_size_list": Key("pruning.KIND.sizes", "KIND is `ffn`, or `expert_intermediate`."),
    "pruning.n_heads_in_group_list": Key("pruning.kv_heads.heads_per_group"),
    "pruning.num_experts_to_keep_list": Key("pruning.experts_removal.sizes"),
    "pruning.hidden_size_list": Key("pruning.hidden_size.sizes"),
    "pruning.mlp_init_mode": Key(
        "pruning.KIND.init", "`PruneByActivationsLog`, `ExpertRemoval`: `importance`; `Truncate`: `truncate`."
    ),
    "pruning.gqa_init_mode": Key(
        "pruning.kv_heads.init", "`PruneKVHeads`: `importance`; `AverageKV`: `average`; `FirstKV`: `first`."
    ),
    "pruning.hidden_size_init_mode": Key(
        "pruning.hidden_size.init", "`PruneByChannelRanking`: `importance`; `Truncate`: `truncate`."
    ),
    "pruning.mlp_init_config_yaml.expert_scores_key": Key(
        "pruning.experts_removal.hook_options.metric", "`expert_ranks_mse`: `mse`; `expert_ranks_cosine`: `cosine`."
    ),
    "pruning.mlp_init_config_yaml.higher_is_better": Key(doc="Checked: `true`."),
    "pruning.mlp_init_config_yaml.scale_pruned_weights": Key(doc="Checked: `false`."),
    **_ignored(PATHS, "activations_log_dir", "layer_prefix_template", under="pruning.mlp_init_config_yaml."),
    **_ignored(LEGACY, "ffn_list", "linear_init_mode", under="pruning."),
    "pruning.eval_samples": Key("data.calibration_tokens", "Times `block_size`."),
    "pruning.block_size": Key("data.block_size"),
    "pruning.micro_batch_size": Key("data.batch_size"),
    "pruning.model_dtype": Key("dtype", "With or without `torch.`."),
    **_ignored(
        PATHS, "activations_log_dir", "model_name_or_path", "pruned_ckpts_output_dir", "write_results", under="pruning."
    ),
    **_ignored(LABELS, "experiment_id", under="pruning."),
    **_ignored(
        ONE_VALUE, "descriptor", "dataset_path", "seed", "autocast_dtype", "calc_losses_on_cpu", under="pruning."
    ),
    **{
        f"{section}.{name}": Key(doc=DATA, has_no_effect=True)
        for section in ("pruning", "scoring", "realize_model")
        for name in (
            "bos_rate",
            "data_column",
            "fim_rate",
            "fim_spm_rate",
            "load_dataset_fn",
            "shuffle_seed",
            "source_datasets_to_discard",
            "val_dataset_name",
            "varlen",
        )
    },
    # What candidates and children are measured with.
    "scoring.eval_samples": Key("data.scoring_tokens", "Times `block_size`."),
    "scoring.seed": Key("seed"),
    "realize_model.eval_samples": Key("data.evaluation_tokens", "Times `block_size`."),
    "realize_model.skip_validation": Key("evaluation.enabled", "The opposite."),
    "realize_model.save_models": Key(doc="Only `true`; `anyblock search` looks for a child without writing it."),
    **_ignored(ONE_VALUE, "realize_model.seed"),
    **{
        f"{section}.{name}": Key(doc=reason, has_no_effect=True)
        for section in ("scoring", "realize_model")
        for reason, names in {
            PATHS: ("output_dir", "replacement_library_path", "solutions_path", "teacher_dir", "tokenizer_name"),
            ONE_VALUE: (
                "autocast_dtype",
                "block_size",
                "calc_losses_on_cpu",
                "dataset_path",
                "descriptor",
                "micro_batch_size",
                "model_dtype",
            ),
            "a run continues where it stopped": ("skip_existing_solutions",),
            "every candidate is scored": ("solutions_to_validate",),
            "results are always written": (
                "activations_log_dir",
                "bigger_is_better",
                "model_name_or_path",
                "sort_solutions_by",
                "write_results",
            ),
        }.items()
        for name in names
    },
    **_ignored(
        "every candidate is scored, and only the child is written", "scoring.skip_validation", "scoring.save_models"
    ),
    **_ignored(
        "the reference does not read it either",
        *(f"{name}.calculate_full_score_ablations" for name in ("scoring", "realize_model")),
    ),
    # What a child may cost.
    "calc_subblock_stats.prefill_seq_len": Key("search.length", "Together with `generation_seq_len`."),
    "calc_subblock_stats.generation_seq_len": Key("search.generated", "And added to `search.length`."),
    "calc_subblock_stats.batch_sizes": Key("search.batch", "Where `mip.subblock_stats_args` names none: the only one."),
    **_ignored(
        STATS,
        *(
            "allocate_prefill_query",
            "backend",
            "benchmark_iterations",
            "merge_with_existing_stats",
            "moe_stats_filename",
        ),
        *("num_active_tokens_override", "prefill_queue_size", "runtime_stats", "subblock_stats_filename"),
        under="calc_subblock_stats.",
    ),
    "mip.subblock_stats_args": Key("search.batch, search.cache_dtype", "One entry; its other keys have no effect."),
    "mip.objective": Key(
        "scoring.metric",
        "`metrics.cosine_embedding_loss_hidden_states`: `cosine`; `metrics.kl_div` and `metrics.lm_loss` likewise.",
    ),
    "mip.bigger_is_better": Key(doc="Checked: `false`."),
    "mip.human_constraints": Key("search.budget", "See the table of constraints."),
    "mip.mip_constraints": Key("search.budget", "See the table of constraints; one set of constraints a run."),
    "mip.max_seconds_per_solution": Key("search.time_limit"),
    "mip.num_solutions": Key("search.solutions"),
    "mip.minimal_diversity": Key("search.min_distance"),
    "mip.sweep": Key(doc="Only when it is switched off; `anyblock search` sweeps budgets."),
    **_ignored(
        PATHS,
        *("gathered_metrics_path", "output_path", "single_block_replacement_validation_dir", "subblock_stats_path"),
        under="mip.",
    ),
    **_ignored("the report has every cost", "report_additional_costs", under="mip."),
    **_ignored(
        "the reference does not read it either",
        *("constrain_search_func", "is_multi_layer_puzzle", "use_greedy_search"),
        under="mip.",
    ),
    "mip.metric_overrides": Key(doc="Only when it is empty."),
    "mip.puzzle_profile": Key(doc="Only when it is empty."),
}
"""`{dotted key: what becomes of it}`."""
