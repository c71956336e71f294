"""What is inferred about architectures, and what is claimed of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig
from anyblock.descriptors import Size
from anyblock.errors import UnsupportedModelError, UsageError
from anyblock.family import get_family, inferring_families
from anyblock_new_family.introspection import InferredFamily, infer_family, infer_from
from anyblock_new_family.introspection.model import TinyModel
from anyblock_new_family.introspection.tiny import TinyConfig
from anyblock_new_family.source import descriptor_source
from anyblock_new_family.write import write_distribution


@pytest.fixture(scope="module")
def llama() -> InferredFamily:
    return infer_family("llama")


def test_a_plain_decoder_is_recognised(llama: InferredFamily) -> None:
    facts = llama.attributes
    assert (facts["decoder_prefix"], facts["layers"], facts["final_norm"]) == ("model", "layers", "norm")
    assert facts["checkpoint_head"] is None
    (attention,), (ffn,) = llama.kinds("attention").values(), llama.kinds("ffn").values()
    assert attention.names == ("input_layernorm", "self_attn")
    assert ffn.names == ("mlp", "post_attention_layernorm")
    assert attention.sizes == {"num_key_value_heads": Size("num_key_value_heads")}
    assert ffn.sizes == {"intermediate_size": Size("intermediate_size")}
    assert facts["not_implemented"].keys() == {"hidden_size"}
    json.dumps(llama.to_dict())


def test_generated_code_answers_as_the_inferred_descriptor(llama: InferredFamily) -> None:
    from anyblock.family import ModelFamily
    from anyblock_new_family.introspection import inferred_model_family

    space: dict[str, object] = {"__name__": "generated"}
    exec(compile(descriptor_source(llama), "generated", "exec"), space)
    written = ModelFamily.from_descriptor(space["LlamaDescriptor"], model_type="llama")
    inferred, config = inferred_model_family(llama), llama.tiny.make()
    assert written.conformance_config().to_dict() == config.to_dict()
    assert written.create_block_configs(config) == inferred.create_block_configs(config)
    groups = [family.layer_name_predicates(2, config) for family in (written, inferred)]
    for name in TinyModel(llama.tiny).tensors:
        own, other = ({group for group, pattern in each.items() if pattern.fullmatch(name)} for each in groups)
        assert own == other
        assert len(own) == 1
    assert {name: bool(own) for name, own in written.capabilities().items()} == {
        name: bool(own) for name, own in inferred.capabilities().items()
    }
    assert written.capabilities()["hidden_size"] == inferred.capabilities()["hidden_size"]
    assert {k: m.layer_descriptor for k, m in written.pruning_mixins().items()} == {
        k: m.layer_descriptor for k, m in inferred.pruning_mixins().items()
    }


def test_a_distribution_is_the_same_when_it_is_written_again(llama: InferredFamily, tmp_path: Path) -> None:
    pytest.importorskip("ruff")
    first, second = (write_distribution(llama, tmp_path / name) for name in ("one", "two"))
    paths = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert [str(path) for path in paths] == [
        "README.md",
        "pyproject.toml",
        "src/anyblock_llama/__init__.py",
        "src/anyblock_llama/py.typed",
        "tests/test_conformance.py",
    ]
    assert all((first / path).read_bytes() == (second / path).read_bytes() for path in paths)
    with pytest.raises(UsageError, match="exists"):
        write_distribution(llama, first)


def test_what_no_adapter_serves_is_inferred_on_request_only() -> None:
    with pytest.raises(UnsupportedModelError):
        get_family("arcee")
    notes: list[str] = []
    with inferring_families(notes.append):
        family = get_family("arcee")
        get_family("arcee")
    assert family.model_type == "arcee"
    assert family.supports("ffn_intermediate")
    assert len(notes) == 1
    assert "no adapter for 'arcee' is installed" in notes[0]
    with pytest.raises(UnsupportedModelError, match="no model_type"):
        get_family("auto:arcee2")


def test_a_residual_inside_the_branch_is_returned_by_the_no_op() -> None:
    bloom = infer_family("bloom")
    (attention,), (ffn,) = bloom.kinds("attention").values(), bloom.kinds("ffn").values()
    assert attention.residuals.keys() == {"self_attention"}
    assert ffn.residuals.keys() == {"mlp"}
    assert ffn.sizes == {"intermediate_size": Size("hidden_size", times=4, fixed=True)}
    assert not {"attention_no_op", "ffn_no_op"} & set(bloom.attributes["not_implemented"])
    assert "ffn_intermediate" in {*bloom.attributes["not_implemented"], *bloom.attributes["unsupported"]}


@pytest.mark.parametrize("model_type", ["openai-gpt", "recurrent_gemma", "xlstm"])
def test_other_ways_to_keep_what_was_seen(model_type: str) -> None:
    not_implemented = infer_family(model_type).attributes["not_implemented"]
    assert not {"build", "search", "attention_no_op", "ffn_no_op"} & not_implemented.keys()


def test_a_norm_that_feeds_both_halves_belongs_to_neither() -> None:
    cohere = infer_family("cohere")
    assert cohere.attributes["other"] == ("input_layernorm",)


def test_an_unusual_class_from_outside_of_transformers(odd: InferredFamily) -> None:
    (attention,), (ffn,) = odd.kinds("attention").values(), odd.kinds("ffn").values()
    assert attention.names == ("first", "gaze")
    assert ffn.names == ("hall", "second")
    assert attention.attentions == {"gaze": 1}  # it counts positions in the cache, by an index called `block_id`
    assert odd.attributes["other"] == ("share",)  # a factor of both halves
    assert attention.sizes == {"num_key_value_heads": Size("ears")}
    assert ffn.sizes == {"intermediate_size": Size("hall")}
    family = get_family("auto:anyblock_odd")
    config = odd.tiny.make()
    block = BlockConfig(attention=AttentionConfig(num_key_value_heads=2), ffn=FFNConfig(intermediate_size=48))
    assert family.create_block_configs(config)[0].attention == block.attention
    assert {"attention_no_op", "ffn_no_op", "ffn_intermediate", "kv_heads"} <= {
        name for name, capability in family.capabilities().items() if capability
    }


@pytest.fixture(scope="module")
def odd() -> InferredFamily:
    from anyblock_tests.odd_model import OddConfig, register

    register()
    path = f"{OddConfig.__module__}.{OddConfig.__qualname__}"
    assert infer_from(TinyModel(TinyConfig(path, {}))).model_type == "anyblock_odd"
    return infer_family("anyblock_odd")


@pytest.mark.parametrize(
    ("model_type", "attributes"),
    [
        ("arcee", ["ffn_mixins(self.checkpoint_layer, ffn='mlp', linears=('up_proj', 'down_proj'))"]),
        ("mixtral", ["names=('block_sparse_moe',", "linears=('w1', 'w3', 'w2')", "Size('intermediate_size')"]),
        ("cohere", ["other = ('input_layernorm',)"]),
        ("gpt2", ["decoder_prefix = 'transformer'", "default=Size('hidden_size', times=4)"]),
    ],
)
def test_a_generated_class_says_what_differs_in_the_vocabulary_of_the_bases(
    model_type: str, attributes: list[str]
) -> None:
    inferred = infer_family(model_type)
    source = descriptor_source(inferred)
    assert "Descriptor(LayoutDescriptor):" in source
    assert [line for line in attributes if line not in source] == []
    assert not any(f"    {name} = " in source for name in ("layer_count", "checkpoint_prefix", "attention_by"))
    assert descriptor_source(inferred) == source
