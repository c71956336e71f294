"""One fault makes one failure, which shows the place in the plugin; of a checkpoint the report says who is likelier wrong."""

from __future__ import annotations

import pytest
from anyblock.contract.hookspecs import hookimpl
from anyblock.family import ModelFamily
from anyblock_conformance import run_checkpoint, run_conformance
from anyblock_conformance.outcome import Outcome
from anyblock_conformance.tiny import save_tiny
from mutants.good import Dense
from mutants.structure_shapes import DoublesTheFFNWidth
from safetensors.torch import load_file, save_file


class RaisesInBlockConfigs(Dense):
    @hookimpl
    def create_block_configs(self, config):
        raise ValueError("no such width")


class RaisesInCacheSpec(Dense):
    @hookimpl
    def cache_spec(self, config, block_config, layer_index):
        raise ValueError("no such cache")


class RaisesInMixins(Dense):
    @hookimpl
    def pruning_mixins(self):
        raise IndexError("tuple index out of range")


class RaisesInNoOp(Dense):
    @hookimpl
    def attn_no_op_post_init(self, decoder_layer):
        return decoder_layer.no_such_module


RAISING = {
    RaisesInBlockConfigs: "create_block_configs",
    RaisesInCacheSpec: "cache_spec",
    RaisesInMixins: "pruning_mixins",
    RaisesInNoOp: "attn_no_op_post_init",
}


@pytest.mark.parametrize("adapter", RAISING, ids=RAISING.values())
def test_a_hook_that_raises_is_one_failure_with_the_place_in_the_plugin(adapter):
    report = run_conformance(adapter)
    (failure,) = report.failures
    line = getattr(adapter, RAISING[adapter]).__code__.co_firstlineno + 2
    assert f"hook {RAISING[adapter]}: " in failure.message
    assert f"{__file__}:{line}" in failure.message
    assert failure.fix.startswith(f"FamilySpec.{RAISING[adapter]} says what is right")
    because = [r for r in report.results if r.message.startswith(f"not run because of {failure.id}")]
    assert because
    assert all(result.outcome is Outcome.SKIPPED for result in because)
    assert not report.passed


@pytest.fixture
def checkpoint(tmp_path):
    family = ModelFamily.from_descriptor(Dense, model_type="llama")
    return save_tiny(family.conformance_config(), tmp_path / "model")


def spoil(path, change):
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors", {"format": "pt"})


def test_one_weight_that_is_not_a_number_is_one_failure_which_names_it(checkpoint):
    spoil(checkpoint, lambda tensors: tensors["model.layers.1.mlp.up_proj.weight"].view(-1)[5].fill_(float("nan")))
    family = ModelFamily.from_descriptor(Dense, model_type="llama")
    (failure,) = run_checkpoint(checkpoint, family=family, full=True).failures
    assert "tensor model.layers.1.mlp.up_proj.weight holds 1 of 384 values that are NaN or infinite" in failure.message
    assert "so the checkpoint is likelier wrong" in failure.fix
    assert "download or convert the checkpoint again" in failure.fix


def test_of_a_checkpoint_that_is_broken_the_report_says_so_and_to_whom_the_advice_is(checkpoint):
    spoil(checkpoint, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.bias"))
    family = ModelFamily.from_descriptor(Dense, model_type="llama")
    (failure,) = run_checkpoint(checkpoint, family=family).failures
    assert failure.id == "structure.block-configs"
    assert "passes this check on its own tiny model, so the checkpoint is likelier wrong" in failure.fix
    assert f"for the author of {family.distribution}" in failure.fix


def test_of_an_adapter_that_is_wrong_the_report_on_a_sound_checkpoint_says_so(checkpoint):
    family = ModelFamily.from_descriptor(DoublesTheFFNWidth, model_type="llama")
    (failure,) = run_checkpoint(checkpoint, family=family).failures
    assert failure.id == "structure.block-configs"
    assert "fails this check on its own tiny model, too: it is likelier wrong" in failure.fix
    assert "How to fix" not in failure.fix
    assert "read each size" in failure.fix


def test_two_faults_are_two_failures():
    class RaisesTwice(RaisesInCacheSpec):
        @hookimpl
        def requires_trust_remote_code(self):
            return "perhaps"

    report = run_conformance(RaisesTwice, levels=["structure"])
    assert [failure.id for failure in report.failures] == ["structure.hooks", "structure.config-view"]
