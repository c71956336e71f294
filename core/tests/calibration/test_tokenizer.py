"""Loading a model's tokenizer from its directory."""

from __future__ import annotations

import json

import pytest
from anyblock.calibration.tokenizer import load_tokenizer
from anyblock.errors import InputError


def test_saved_tokenizer_comes_back(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path)("héllo")["input_ids"] == tokenizer("héllo")["input_ids"]


def test_no_directory(tmp_path):
    with pytest.raises(InputError, match="is not a directory"):
        load_tokenizer(tmp_path / "nowhere")


@pytest.mark.parametrize("class_name", [None, "LlamaTokenizer", "GPT2Tokenizer"])
def test_directory_without_vocabulary(tmp_path, class_name):
    """transformers makes an empty tokenizer of some of these, which would turn every text into nothing."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    if class_name:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": class_name}))
    with pytest.raises(InputError, match="tokenizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["{broken", "[]", "[" * 100_000])
def test_damaged_file(tmp_path, tokenizer, name, content):
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match="cannot be loaded"):
        load_tokenizer(tmp_path)


def test_one_that_comes_as_code_needs_trust(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": [None, "mine.Mine"]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "mine.py").write_text("from transformers import PreTrainedTokenizerFast as Mine\n")
    with pytest.raises(InputError) as caught:
        load_tokenizer(tmp_path)
    assert "--trust-remote-code" in str(caught.value)
