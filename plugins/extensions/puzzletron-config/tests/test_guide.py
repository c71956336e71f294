"""The guide's files: main files with everything they compose, and pruning files by themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from anyblock.config import load_config
from anyblock.config.budget import Bound, parse_bound
from anyblock.config.registry import NameRegistry
from anyblock.config.schema import RunConfig
from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors.mixins import FFNIntermediateLayerDescriptor, FFNIntermediatePruningMixIn, PruningMixIn
from anyblock.errors import ConfigError
from anyblock.family import ModelFamily, get_family
from anyblock_puzzletron_config.keys import GUIDE_KEYS
from anyblock_puzzletron_config.tables import CONSTRAINTS, FIXED, SWITCHED_OFF
from omegaconf import OmegaConf

BASE = {"model": "m", "output": "o"}
PACKAGE = "modelopt.torch.puzzletron"

MAIN = """
defaults:
  - pruning: ffn_pruning
  - scoring: ../validate_solutions
  - realize_model: ../validate_solutions
  - bypass:
  - override hydra/hydra_logging: disabled
  - _self_

descriptor: llama
puzzle_dir: ???
teacher_dir: ${puzzle_dir}/ckpts/teacher/
dataset_path: ???
input_hf_model_path: some/model

build_replacement_library:
  add_ffn_no_ops: true
  add_attention_no_ops: false

calc_subblock_stats:
  batch_sizes: [64, 96]
  prefill_seq_len: 3000
  generation_seq_len: 1000
  num_active_tokens_override:
  runtime_stats: {backend: trt_torch}

scoring:
  descriptor: ${descriptor}
  solutions_path: ${to_path:${puzzle_dir}/solutions.json}
  eval_samples: 8
  dataset_path: ${dataset_path}/valid
  seed: 42

mip:
  output_path: ${to_path:${puzzle_dir}/mip}
  puzzle_profile:
  objective: metrics.cosine_embedding_loss_hidden_states
  bigger_is_better: false
  subblock_stats_args:
    - batch_size: 96
      weights_dtype: torch.bfloat16
      kv_cache_dtype: torch.bfloat16
  human_constraints:
    target_memory: 78_000
    num_params: 7_000_000_000
  mip_constraints:
  max_seconds_per_solution: 30

realize_model:
  save_models: true
  skip_validation: false
  eval_samples: 2

nccl_timeout_minutes: ${timedelta_minutes:10}
hydra:
  run: {dir: "${puzzle_dir}/${now:%Y-%m-%d}"}
"""
FFN = f"""
defaults:
  - pruning_defaults
activations_log_dir: ${{puzzle_dir}}/ffn_${{pruning.activation_hooks_kwargs.method}}/${{pruning.experiment_id}}
pruning_mixin:
  _target_: {PACKAGE}.pruning.ffn_intermediate_pruning_mixin.FFNIntermediatePruningMixIn
  layer_descriptor:
    _target_: {PACKAGE}.anymodel.models.llama.llama_model_descriptor.LlamaFFNIntermediateLayerDescriptor
hook_class: ${{get_object:modelopt.torch.nas.plugins.megatron_hooks.base_hooks.IndependentChannelContributionHook}}
activation_hooks_kwargs:
  method: independent
  target_layer: "mlp.down_proj"
  layer_input_descriptors_path:
intermediate_size_list: [3072, 5888]
mlp_init_mode: PruneByActivationsLog
"""
DEFAULTS = """
defaults:
  - /validate_model
descriptor: ${descriptor}
experiment_id: ${pruning.eval_samples}samples
activations_log_dir: ???
activation_hooks_kwargs: ???
eval_samples: 100
micro_batch_size: 3
dataset_path: ${dataset_path}
ffn_list:
mlp_init_mode: Truncate
n_heads_in_group_list:
gqa_init_mode: AverageKV
hidden_size_list:
hidden_size_init_mode: PruneByChannelRanking
mlp_init_config_yaml:
  activations_log_dir: ${pruning.activations_log_dir}
"""
VALIDATE = f"""
model_dtype: torch.bfloat16
block_size: 2048
bos_rate: 0.5
fim_rate: 0
seed: 7
load_dataset_fn: ${{get_object:{PACKAGE}.utils.data.dataloaders.load_from_disk_fn}}
"""


@pytest.fixture
def main(write) -> Path:
    """A main file of the reference's shape, with its pruning file and its defaults."""
    write(FFN, "pruning/ffn_pruning.yaml")
    write(DEFAULTS, "pruning/pruning_defaults.yaml")
    write(VALIDATE, "validate_model.yaml")
    write("defaults:\n  - /validate_model\nskip_existing_solutions: true\n", "validate_solutions.yaml")
    return write(MAIN, "main.yaml")


def line(path: Path, text: str) -> int:
    return next(number for number, found in enumerate(path.read_text().splitlines(), 1) if text in found)


def test_a_main_file_loads_as_it_is(main: Path, registry: NameRegistry, notes) -> None:
    config = load_config(main, ["puzzle_dir=work", "dataset_path=text.txt"], registry=registry, progress=notes)
    assert config == RunConfig.model_validate(
        {
            "model": "some/model",
            "output": "work/child",
            "run_dir": "work",
            "dtype": "bfloat16",
            "seed": 42,
            "data": {
                "path": "text.txt",
                "block_size": 2048,
                "calibration_tokens": 204_800,
                "scoring_tokens": 16_384,
                "evaluation_tokens": 4096,
                "batch_size": 3,
            },
            "pruning": {
                "ffn": {
                    "sizes": [3072, 5888],
                    "hook": "IndependentChannelContributionHook",
                    "extra_hooks": [],
                    "target": "mlp.down_proj",
                },
                "attention": {"no_op": False},
            },
            "scoring": {"metric": "cosine"},
            "search": {
                "budget": {"memory": "<=78000MiB", "params": "<=7000000000"},
                "batch": 96,
                "length": 4000,
                "generated": 1000,
                "cache_dtype": "bfloat16",
                "time_limit": 30.0,
            },
        }
    )
    assert [bound.upper.value for bound in config.search.bounds() if bound.upper] == [78000 * 2**20, 7e9]
    said = "\n".join(notes.lines)
    for key in ("teacher_dir", "solutions_path", "nccl_timeout_minutes", "hydra", "load_dataset_fn", "experiment_id"):
        assert key in said
    for key in ("num_active_tokens_override", "ffn_list", "eval_samples"):
        assert key not in said
    assert not OmegaConf.has_resolver("get_object")
    assert not OmegaConf.has_resolver("to_path")


def test_a_value_that_is_left_open_is_named(main: Path, registry: NameRegistry) -> None:
    with pytest.raises(ConfigError, match=r"(?s)puzzle_dir is \?\?\?.*dataset_path is \?\?\?") as caught:
        load_config(main, registry=registry)
    assert f"{main}:{line(main, 'puzzle_dir: ?')}: puzzle_dir" in caught.value.what


def test_options_and_overrides_win_in_either_vocabulary(main: Path, registry: NameRegistry) -> None:
    overrides = [
        "puzzle_dir=work",
        "dataset_path=t",
        "pruning.intermediate_size_list=[64]",
        "search.budget.params=0.8x",
    ]
    base = {"output": "child", "data": {"block_size": 128}}
    config = load_config(main, overrides, base, registry=registry)
    assert config.output == "child"
    assert config.pruning.ffn.sizes == (64,)
    assert config.search.budget == {"memory": "<=78000MiB", "params": "0.8x"}
    assert (config.data.block_size, config.data.calibration_tokens) == (128, 12_800)
    assert load_config(main, [*overrides, "pruning.ffn.sizes=[32]"], base, registry=registry).pruning.ffn.sizes == (32,)
    other = load_config(main, [*overrides, "~mip.human_constraints.target_memory"], base, registry=registry)
    assert other.search.budget == {"params": "0.8x"}


def pruning(write, registry: NameRegistry, text: str, **options: object) -> RunConfig:
    return load_config(write(text), (), {**BASE, **options}, registry=registry)


GUIDE_EXAMPLE = """
pruning_mixin:
  _target_: pruning.{0}_pruning_mixin.{1}PruningMixIn
  layer_descriptor:
    _target_: models.llama.llama_model_descriptor.Llama{1}LayerDescriptor
hook_class: ${{get_object:utils.activation_hooks.hooks.{2}}}
activation_hooks_kwargs:
  method: {3}
  target_layer: "{4}"
"""


def test_the_guides_ffn_example(write, registry: NameRegistry) -> None:
    text = GUIDE_EXAMPLE.format(
        "ffn_intermediate", "FFNIntermediate", "IterativeChannelContributionHook", "iterative", "mlp.down_proj"
    )
    ffn = pruning(write, registry, text).pruning.ffn
    assert (ffn.hook, ffn.target, ffn.extra_hooks) == ("IterativeChannelContributionHook", "mlp.down_proj", ())
    assert ffn.sizes == (0.25, 0.5, 0.75)


def test_the_guides_kv_heads_example(write, registry: NameRegistry) -> None:
    text = GUIDE_EXAMPLE.format(
        "kv_heads",
        "KVHeads",
        "IndependentKvHeadContributionHook",
        "independent_kv_head_contribution",
        "self_attn.o_proj",
    )
    text += "  optimize_for: latency\nn_heads_in_group_list: [8, 16]\ngqa_init_mode: PruneKVHeads\n"
    config = pruning(write, registry, text)
    heads = config.pruning.kv_heads
    assert heads is not None
    assert (heads.hook, heads.target) == ("IndependentKvHeadContributionHook", "self_attn.o_proj")
    assert heads.hook_options == {"optimize_for": "latency"}
    assert heads.absolute_sizes(8, query_heads=32) == (2, 4)
    assert config.pruning.ffn.sizes == ()
    assert list(config.pruning.kinds()) == ["kv_heads"]


def test_an_experts_file(write, registry: NameRegistry) -> None:
    known = NameRegistry(registry.hooks, registry.mixins, "nemotron_h", dialects=registry.dialects)
    config = pruning(
        write,
        known,
        f"""
        pruning_mixin:
          _target_: {PACKAGE}.pruning.expert_removal_pruning_mixin.ExpertRemovalPruningMixIn
          layer_descriptor:
            _target_: {PACKAGE}.anymodel.models.nemotron_h.nemotron_h_model_descriptor.NemotronHExpertRemovalLayerDescriptor
            target_name: "mixer"
        hook_class: ${{get_object:modelopt.torch.nas.plugins.megatron_hooks.base_hooks.NemotronHRemoveExpertsIndependentHook}}
        activation_hooks_kwargs:
        num_experts_to_keep_list: [96, 64]
        mlp_init_mode: "ExpertRemoval"
        mlp_init_config_yaml: {{expert_scores_key: "expert_ranks_cosine", higher_is_better: true}}
        """,
    )
    found = config.pruning.experts_removal
    assert found is not None
    assert (found.sizes, found.hook, found.target) == ((96, 64), "MoERemoveExpertsHook", "mixer")
    assert found.hook_options == {"metric": "cosine"}


def test_a_file_without_mixin_and_hook_is_understood_by_its_label(write, registry: NameRegistry) -> None:
    config = pruning(
        write,
        registry,
        """
        activation_hooks_kwargs: {method: independent_kv_head_contribution, target_layer: self_attn.o_proj}
        n_heads_in_group_list: [4]
        """,
    )
    assert config.pruning.kv_heads is not None
    assert config.pruning.kv_heads.hook == "IndependentKvHeadContributionHook"
    assert pruning(write, registry, "activation_hooks_kwargs: {method: independent}").pruning.ffn.hook == (
        "IndependentChannelContributionHook"
    )


def test_lists_of_sizes_alone_are_enough(write, registry: NameRegistry) -> None:
    config = pruning(write, registry, "pruning: {intermediate_size_list: [8], n_heads_in_group_list: [4]}")
    assert config.pruning.ffn.sizes == (8,)
    assert config.pruning.kv_heads is not None
    assert config.pruning.kv_heads.heads_per_group == (4,)
    assert config.pruning.ffn.hook is None


def test_a_list_that_the_mixin_does_not_read_has_no_effect(write, registry: NameRegistry) -> None:
    """The reference's own files keep one for another mixin."""
    text = "pruning_mixin: {_target_: KVHeadsPruningMixIn}\nn_heads_in_group_list: [4]\nintermediate_size_list: [8]\n"
    config = pruning(write, registry, text)
    assert config.pruning.kv_heads is not None
    assert config.pruning.kv_heads.heads_per_group == (4,)
    assert config.pruning.ffn.sizes == ()


class OwnMixIn(FFNIntermediatePruningMixIn):
    """A kind that core does not have."""


class OwnKind:
    @hookimpl
    def pruning_mixins(self) -> dict[str, PruningMixIn]:
        return {"state_size": OwnMixIn(FFNIntermediateLayerDescriptor())}


def test_a_plugins_own_mixin_gets_a_section_of_its_own(write, registry: NameRegistry) -> None:
    family = ModelFamily.from_descriptor(get_family("llama").descriptor, model_type="llama", extensions=[OwnKind()])
    known = replace(NameRegistry.for_family(family), dialects=registry.dialects)
    text = "pruning_mixin: {_target_: OwnMixIn}\nhook_class: L2NormHook\nintermediate_size_list: [4]\n"
    own = pruning(write, known, text).pruning.state_size
    assert own.sizes == (4,)
    assert own.hook == "L2NormHook"


def test_the_descriptor_has_to_be_the_models_own(write, tmp_path: Path, registry: NameRegistry) -> None:
    """Where the model is on this machine; of a model on the hub nothing is known yet."""
    (tmp_path / "config.json").write_text('{"model_type": "mistral"}')
    text = "output: o\npuzzle_dir: p\ninput_hf_model_path: {}\ndescriptor: {}\n"
    for model, descriptor in ((tmp_path, "mistral_small"), (tmp_path, "mistral"), ("some/model", "llama")):
        path = write(text.format(model, descriptor))
        assert load_config(path, registry=registry).model == str(model)
    with pytest.raises(ConfigError, match=r"run.yaml:4: descriptor is 'llama', .* has the model_type 'mistral'"):
        load_config(write(text.format(tmp_path, "llama")), registry=registry)


def test_both_vocabularies_can_be_mixed(write, registry: NameRegistry) -> None:
    config = pruning(
        write,
        registry,
        """
        descriptor: mistral_small
        data: {path: "${puzzle_dir}/text.txt"}
        puzzle_dir: work
        pruning:
          repair: {method: none}
          intermediate_size_list: [8]
        scoring: {method: estimated, eval_samples: 2}
        search: {budget: [params=0.8x]}
        mip: {num_solutions: 3, minimal_diversity: 2}
        """,
    )
    assert (config.data.path, config.run_dir) == ("work/text.txt", "work")
    assert (config.pruning.repair.method, config.pruning.ffn.sizes) == ("none", (8,))
    assert (config.scoring.method, config.data.scoring_tokens) == ("estimated", 1024)
    assert (config.search.solutions, config.search.min_distance) == (3, 2)


REFUSED = [
    ("skip_realize_model: true", "skip_realize_model is True"),
    ("bypass: {enabled: true}", "bypass is switched on"),
    ("bypass: something", "bypass is switched on"),
    ("mip: {sweep: {enabled: true}}", "mip.sweep is switched on"),
    ("mip: {sweep: {memory_compression_rates: [0.5]}}", "mip.sweep is switched on"),
    ("mip: {bigger_is_better: true}", "mip.bigger_is_better is True"),
    ("mip: {metric_overrides: {a: 1}}", "mip.metric_overrides is"),
    ("mip: {objective: metrics.js_div}", "mip.objective is 'metrics.js_div'"),
    ("mip: {objectiv: 3}", "mip.objectiv: unknown key; did you mean 'mip.objective'"),
    ("mip: 3", "mip is 3; expected a mapping"),
    (
        "mip: {human_constraints: {target_memry: 3}}",
        "human_constraints.target_memry: unknown constraint.*target_memory",
    ),
    ("mip: {human_constraints: {target_time_to_first_token: 3}}", "search.generated=0"),
    ("mip: {human_constraints: 3}", "human_constraints is 3"),
    (
        "mip: {human_constraints: {target_memory: lots}}",
        "memory: '.*lotsMiB' is not a quantity|'lotsMiB' is not a quantity",
    ),
    ("mip: {mip_constraints: [{stats.num_params: 1}, {stats.num_params: 2}]}", "has 2 sets of constraints"),
    ("mip: {human_constraints: {num_params: 3}, mip_constraints: {stats.num_params: 3}}", "contradicts"),
    ("mip: {human_constraints: {num_params: 3, stats.num_params: 4}}", "two budgets contradict each other"),
    ("mip: {mip_constraints: {stats.num_kv_heads: [100, 40]}}", "lower bound is above"),
    ("mip: {subblock_stats_args: [{batch_size: 1}, {batch_size: 2}]}", "a list with one mapping"),
    ("mip: {subblock_stats_args: [{kv_cache_dtype: nvfp4}]}", "cache_dtype: input should be.*'nvfp4'"),
    ("calc_subblock_stats: {prefill_seq_len: 3}", "generation_seq_len is None"),
    ("calc_subblock_stats: {batch_size: [3]}", "calc_subblock_stats.batch_size: unknown key.*batch_sizes"),
    ("realize_model: {save_models: false}", "realize_model.save_models is False"),
    ("realize_model: {eval_samples: many}", "realize_model.eval_samples is 'many'"),
    ("realize_model: {metric: kl}", "realize_model.metric: unknown key"),
    (
        "descriptor: llama\nscoring: {eval_sample: 3}",
        "scoring.eval_sample: unknown key; did you mean 'scoring.eval_samples'",
    ),
    ("pruning: {eval_samples: 3, fnn: {}}", "pruning.fnn: unknown key.*'pruning.ffn'"),
    (
        "pruning: {intermediate_size_list: [8], mlp_init_mode: Random}",
        "is Random, which is not an init.*random weights would",
    ),
    ("pruning: {n_heads_in_group_list: [8], gqa_init_mode: Degrouping}", "is Degrouping, .*more key-value heads"),
    ("pruning: {n_heads_in_group_list: [8], gqa_init_mode: AvrageKV}", "is AvrageKV, .*AverageKV"),
    ("pruning: {n_heads_in_group_list: [8], gqa_init_mode: CopyAsIs}", "is CopyAsIs, .*own size"),
    ("pruning: {num_experts_to_keep_list: [2], mlp_init_mode: ConcatExpertsIntoDenseFFN}", "is ConcatExpertsInto"),
    ("pruning: {intermediate_size_list: [1.5]}", "a fraction lies between"),
    ("pruning: {intermediate_size_list: 8}", "pruning.ffn.sizes: input should be a valid tuple"),
    ("pruning: {eval_samples: 3, ffn: {sizes: [4]}, intermediate_size_list: [8]}", "contradicts .*pruning.ffn.sizes"),
    (
        "search: {budget: {params: 0.8x}}\nmip: {human_constraints: {num_params: 3}}",
        "contradicts .*search.budget.params",
    ),
    ("pruning: {mlp_init_config_yaml: {scale_pruned_weights: true}}", "scale_pruned_weights is True"),
    ("pruning: {mlp_init_config_yaml: {higher_is_better: false}}", "higher_is_better is False"),
    ("activation_hooks_kwargs: {method: magic}", "is 'magic', and there is no hook_class|which says for which kind"),
    ("hook_class: L2NormHook\nn_heads_in_group_list: [1]\nintermediate_size_list: [1]", "which says for which kind"),
    ("hook_class: [L2NormHook]\nintermediate_size_list: [1]", "hook_class is \\['L2NormHook'\\]"),
    (
        "hook_class: ${get_object:FFNIntermediatePruningMixIn}\nintermediate_size_list: [1]",
        "not a registered importance hook",
    ),
    ("pruning_mixin: {_target_: KVHeadsPruningMixIn}\nintermediate_size_list: [1]", "the mixin is kv_heads"),
    ("pruning_mixin: {_target_: L2NormHook}", "'L2NormHook' is not a registered pruning mixin"),
    ("pruning_mixin: {_target_: FFNIntermediatePruningMixIn, _args_: [1]}", "_args_: unknown key"),
    ("pruning_mixin: {_target_: FFNIntermediatePruningMixIn, _partial_: true}", "_partial_: unknown key"),
    (
        "pruning_mixin: {_target_: FFNIntermediatePruningMixIn, layer_descriptor: {down_proj_name: x}}",
        "layer_descriptor.down_proj_name: unknown key",
    ),
    (
        "pruning_mixin: {_target_: FFNIntermediatePruningMixIn, layer_descriptor: {_target_: LlamaKVHeadsLayerDescriptor}}",
        "describes layers for kv_heads, and the mixin is ffn_intermediate",
    ),
    (
        "pruning_mixin: {_target_: FFNIntermediatePruningMixIn, layer_descriptor: {_target_: "
        "models.qwen3.qwen3_model_descriptor.Qwen3FFNIntermediateLayerDescriptor}}",
        "describes the layers of qwen3, and the family is llama|not a registered layer descriptor",
    ),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[text for text, _ in REFUSED])
def test_what_means_something_else_here_is_refused(write, registry: NameRegistry, text: str, message: str) -> None:
    path = write(text)
    with pytest.raises(ConfigError, match=f"(?s){message}") as caught:
        load_config(path, (), BASE, registry=registry)
    assert f"{path}:" in caught.value.what


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "anyblock.x.os.system",
        "pickle.loads",
        "torch.load",
        "anyblock_evil_module.Boom",
        "utils.activation_hooks.hooks.os",
        "",
    ],
)
@pytest.mark.parametrize(
    "form",
    [
        "pruning_mixin: {{_target_: '{}'}}",
        "pruning_mixin: {{_target_: FFNIntermediatePruningMixIn, layer_descriptor: {{_target_: '{}'}}}}",
        "hook_class: '{}'\nintermediate_size_list: [1]",
        "hook_class: '${{get_object:{}}}'\nintermediate_size_list: [1]",
        "scoring: {{load_dataset_fn: '${{get_object:{}}}'}}",
        "pruning: {{load_dataset_fn: ['${{ get_object : {} }}']}}",
        "mip: {{_target_: '{}'}}",
        "hydra: {{_target_: '{}', x: '${{get_object:{}}}'}}",
        "_target_: '{}'",
    ],
)
def test_no_file_can_name_an_arbitrary_object(
    write, registry: NameRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, form: str
) -> None:
    evil = tmp_path / "lib" / "anyblock_evil_module.py"
    evil.parent.mkdir()
    evil.write_text("import pathlib\npathlib.Path(__file__).with_suffix('.ran').touch()\nclass Boom: pass\n")
    monkeypatch.syspath_prepend(str(evil.parent))
    path = write(form.format(name, name))
    with pytest.raises(ConfigError) as caught:
        load_config(path, (), BASE, registry=registry)
    assert f"{path}:1" in caught.value.what
    assert not evil.with_suffix(".ran").exists()


@pytest.mark.parametrize(("constraint", "cost", "unit"), [(name, *found) for name, found in CONSTRAINTS.items()])
def test_every_constraint_is_a_budget_that_can_be_read(
    write, registry: NameRegistry, constraint: str, cost: str, unit: str
) -> None:
    def read(constraints: str) -> Bound:
        """The bound as it was written; that a throughput becomes a latency later is tested with budgets."""
        config = pruning(write, registry, f"mip: {{{constraints}}}")
        (bound,) = (parse_bound(name, value) for name, value in config.search.budget.items())
        assert len(config.search.bounds()) == 1
        return bound

    bound = read(f"human_constraints: {{{constraint}: 40}}")
    side = bound.lower if cost == "throughput" else bound.upper
    assert bound.cost == cost
    assert side is not None
    assert side.value == 40 * {"MiB": 2**20, "s": 1000}.get(unit, 1)
    bound = read(f"mip_constraints: [{{{constraint}: [20, 40]}}]")
    assert bound.lower is not None
    assert bound.upper is not None
    assert bound.lower.value * 2 == bound.upper.value
    assert read(f"mip_constraints: {{{constraint}: [null, 40]}}").lower is None
    assert read(f"mip_constraints: {{{constraint}: [20, null]}}").upper is None


@pytest.mark.parametrize("key", sorted(key for key, entry in GUIDE_KEYS.items() if entry.has_no_effect))
def test_a_key_without_effect_is_named_and_changes_nothing(write, registry: NameRegistry, notes, key: str) -> None:
    plain = load_config(None, (), BASE)
    name = key.rpartition(".")[2]
    config = load_config(write(""), [f"{key}=[1]"], BASE, registry=registry, progress=notes)
    assert config == plain
    (said,) = notes.lines
    assert name in said
    assert GUIDE_KEYS[key].doc in said
    assert load_config(write(""), [f"{key}=null"], BASE, registry=registry, progress=notes) == plain
    assert len(notes.lines) == 1


@pytest.mark.parametrize("key", sorted({*FIXED, *SWITCHED_OFF}))
def test_the_harmless_value_of_a_checked_key_is_accepted(write, registry: NameRegistry, key: str) -> None:
    plain = load_config(None, (), BASE)
    value = "{enabled: false, other: 3}" if key in SWITCHED_OFF else str(FIXED[key][0]).lower().replace("none", "null")
    assert load_config(write(""), [f"{key}={value}"], BASE, registry=registry) == plain


def test_every_key_has_an_effect_or_a_reason() -> None:
    for key, entry in GUIDE_KEYS.items():
        assert bool(entry.ours) or bool(entry.doc), key
        assert not (entry.ours and entry.has_no_effect), key
        assert entry.ours.partition(".")[0] in {"", *RunConfig.model_fields}, key
