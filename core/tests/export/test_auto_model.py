"""Exported children load without remote code once AnyBlock has registered itself; importing it changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from anyblock_tests.processes import run_python

REGISTER = """
import anyblock
anyblock.register_auto_classes()
from transformers import AutoModelForCausalLM
"""
LOAD = """
import sys, torch
ids = torch.arange(1, 25).reshape(2, 12)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto")
assert type(model).__module__ == "anyblock.modeling.modeling_anyblock", type(model)
assert torch.equal(model(ids).logits, torch.load(sys.argv[2]))
"""
STOCK = """
stock = AutoModelForCausalLM.from_pretrained(sys.argv[3])
assert type(stock).__module__ == "transformers.models.llama.modeling_llama", type(stock)
"""
OTHER_WAYS = """
from transformers import AutoConfig, AutoModel, pipeline
text = pipeline("text-generation", sys.argv[1])("Once", max_new_tokens=5)[0]["generated_text"]
assert text.startswith("Once") and len(text) > 4, text
bare = AutoModel.from_pretrained(sys.argv[1])
assert not list(bare.layers[1].parameters())
fresh = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(sys.argv[1]))
assert fresh.model.layers[4].mlp.up_proj.weight.shape == (96, 96)
"""
SAVED = "\nmodel.save_pretrained(sys.argv[4])\n"
WITHOUT_ANYBLOCK = """
import sys
sys.modules["anyblock"] = None
from transformers import AutoModelForCausalLM
"""


def run(script: str, *arguments: Path, folder: Path) -> None:
    run_python("-c", script, *arguments, folder=folder)


@pytest.mark.slow
def test_the_auto_classes_build_the_childs_layers_and_what_they_save_loads_without_anyblock(
    exported, llama_dir, tmp_path
):
    """Pipelines do so as well, and what is not a child of AnyBlock's loads as it always does."""
    out, logits = exported
    run(REGISTER + LOAD + SAVED + STOCK + OTHER_WAYS, out, logits, llama_dir, tmp_path / "saved", folder=tmp_path)
    remote = LOAD.replace('dtype="auto"', 'dtype="auto", trust_remote_code=True').replace(
        '== "anyblock.modeling.modeling_anyblock"', '.startswith("transformers_modules.")'
    )
    run(WITHOUT_ANYBLOCK + remote, tmp_path / "saved", logits, folder=tmp_path)


def test_registering_again_changes_nothing(monkeypatch):
    from anyblock import register_auto_classes
    from transformers.models.auto import auto_factory

    monkeypatch.setattr(auto_factory, "_get_model_class", auto_factory._get_model_class)  # put back afterwards
    register_auto_classes()
    found = auto_factory._get_model_class
    register_auto_classes()
    assert auto_factory._get_model_class is found
    assert not hasattr(found.__wrapped__, "__wrapped__")


def test_importing_anyblock_imports_and_changes_no_transformers(tmp_path):
    script = """
import anyblock, sys
assert not {"torch", "transformers"} & set(sys.modules)
from transformers.models.auto import auto_factory
assert auto_factory._get_model_class.__module__ == auto_factory.__name__
assert not hasattr(auto_factory._get_model_class, "__wrapped__")
"""
    run_python("-c", script, folder=tmp_path)


def test_loading_a_model_registers(tmp_path, llama_dir):
    script = """
import sys
from anyblock import load_model
from transformers.models.auto import auto_factory
assert not hasattr(auto_factory._get_model_class, "__wrapped__")
load_model(sys.argv[1])
assert hasattr(auto_factory._get_model_class, "__wrapped__")
del auto_factory._get_model_class
load_model(sys.argv[1])  # a transformers that cannot be taught is no reason to load nothing
"""
    run_python("-c", script, llama_dir, folder=tmp_path)


def test_a_transformers_without_that_function_is_refused(monkeypatch):
    from anyblock import register_auto_classes
    from anyblock.errors import UnsupportedModelError
    from transformers.models.auto import auto_factory

    monkeypatch.delattr(auto_factory, "_get_model_class")
    with pytest.raises(UnsupportedModelError, match="cannot be taught"):
        register_auto_classes()
