"""Removed halves in an export: carried with whatever module stands in for them, or refused; never half-written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from anyblock import convert_model, export_child, get_family, load_model
from anyblock.candidates.candidate import NO_OP, Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import DenseDescriptor
from anyblock.errors import UnsupportedModelError
from anyblock.family import ModelFamily, inferring_families
from anyblock.modeling.no_op import NoOpFFN, NoOpNorm, remove_half
from anyblock.modeling.skeleton import load_hf_config, model_class
from anyblock.realize.realize import realize
from anyblock_tests.processes import run_python


class OwnNoOp(NoOpFFN):
    """A no-op that only its adapter has."""


class Llama(DenseDescriptor):
    """Removes an attention as everyone does, and an ffn with `stand_in`."""

    decoder_layer = "transformers.models.llama.modeling_llama.LlamaDecoderLayer"
    stand_in = OwnNoOp

    @hookimpl
    def mlp_no_op_post_init(self, decoder_layer):
        remove_half(decoder_layer, "mlp", self.stand_in(), ["post_attention_layernorm"])
        return True


class Untidy(Llama):
    """Leaves a module behind that no removed half has."""

    stand_in = NoOpFFN

    @hookimpl
    def mlp_no_op_post_init(self, decoder_layer):
        super().mlp_no_op_post_init(decoder_layer)
        decoder_layer.left_behind = torch.nn.Identity()
        return True


def without(teacher_dir: Path, family: ModelFamily, target: Path, removed: list[tuple[int, str]]) -> Path:
    teacher = SubblockCheckpoint.open(teacher_dir)
    chosen = [
        Candidate(layer, half, NO_OP, 0, teacher.block_configs[layer].with_half(half, no_op=True))
        for layer, half in removed
    ]
    config = family.language_model_config(load_hf_config(teacher_dir))
    return realize(teacher, chosen, CandidateWeights(teacher, family, config, {}), target)


@pytest.mark.parametrize("halves", [["ffn"], ["attention", "ffn"]], ids="+".join)
@pytest.mark.parametrize("descriptor", [Llama, Untidy])
def test_a_module_of_the_adapters_own_is_refused(descriptor, halves, teacher_dir, tmp_path):
    """Also where the other half of the layer is gone with a module that the exported code has."""
    family = ModelFamily.from_descriptor(descriptor(), model_type="llama")
    child = without(teacher_dir, family, tmp_path / "child", [(1, half) for half in halves])
    with pytest.raises(UnsupportedModelError, match=r"at model\.layers\.1\.(mlp|left_behind)"):
        export_child(child, tmp_path / "out", "transformers", family=family)
    assert [path.name for path in tmp_path.iterdir()] == ["child"]


def test_a_half_that_is_removed_inside_of_its_module_is_refused(teacher_dir, tmp_path):
    """The no-op below it can be said, but not that its neighbours are gone."""

    class Inside(Llama):
        @hookimpl
        def mlp_no_op_post_init(self, decoder_layer):
            del decoder_layer.mlp.gate_proj, decoder_layer.mlp.up_proj
            decoder_layer.mlp.down_proj = NoOpFFN()
            decoder_layer.post_attention_layernorm = NoOpNorm()
            return True

    family = ModelFamily.from_descriptor(Inside(), model_type="llama")
    child = without(teacher_dir, family, tmp_path / "child", [(1, "ffn")])
    with pytest.raises(UnsupportedModelError, match=r"nothing at model\.layers\.1\.mlp\.gate_proj"):
        export_child(child, tmp_path / "out", "transformers", family=family)


@pytest.mark.slow
def test_a_no_op_that_returns_the_residual_is_carried(tmp_path):
    """Bloom adds the residual inside of its halves; the exported child computes what the child does."""
    family = get_family("auto:bloom")  # no adapter serves it
    torch.manual_seed(0)
    config = family.conformance_config()
    model_class(config)._from_config(config).save_pretrained(tmp_path / "source")
    with inferring_families(lambda _: None):
        teacher = convert_model(tmp_path / "source", tmp_path / "teacher")
    child = without(teacher, family, tmp_path / "child", [(0, "attention"), (0, "ffn"), (1, "ffn")])
    out = export_child(child, tmp_path / "out", "transformers", family=family)
    ids = torch.arange(1, 13)[None]
    torch.save(load_model(child, family=family)(ids).logits, tmp_path / "logits.pt")
    script = """
import sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True, dtype="auto")
assert type(model.transformer.h[0].mlp).__name__ == "NoOpResidual"
assert torch.equal(model(torch.arange(1, 13)[None]).logits, torch.load(sys.argv[2]))
"""
    run_python("-c", script, out, tmp_path / "logits.pt", folder=tmp_path)
