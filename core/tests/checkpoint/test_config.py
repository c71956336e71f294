"""Reading `config.json`, and the view that falls back to transformers."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from anyblock.checkpoint import config_view, read_config
from anyblock.checkpoint.config_view import layer_view
from anyblock.contract.trust import trusting
from anyblock.errors import ConfigError, InputError


def test_reads_a_directory_and_a_file(llama: Path, tools: Any) -> None:
    assert read_config(llama) == read_config(llama / "config.json") == tools.llama_config()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe{}", "is not UTF-8 text"),
        (b"\xef\xbb\xbf{}", "is not JSON"),
        (b"{", "is not JSON"),
        (b"[1]", "holds a JSON list"),
        (b"3", "holds a JSON number"),
        (b"{}", "has no model_type"),
        (b'{"model_type": null}', "has no model_type"),
        (b'{"model_type": 3}', "has the model_type 3"),
        (b'{"model_type": ""}', "has the model_type ''"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (b'{"a": [' + b"[]," * 2_000_000, "lists and objects"),
        (b" " * 32_000_001, "has 32,000,001 bytes"),
        (b'{"model_type": "a", "rms_norm_eps": NaN}', "'rms_norm_eps' is NaN"),
        (b'{"model_type": "a", "b": {"head_dim": [1, 18446744073709551616]}}', "'head_dim' is 18446744073709551616"),
        (b'{"model_type": "a", "text_config": {"num_hidden_layers": 2147483647}}', "num_hidden_layers is 2147483647"),
        (b'{"model_type": "a", "n_layer": 1e308}', "n_layer is 1e+308"),
    ],
    ids=range(17),
)
def test_refuses_content(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        read_config(tmp_path)
    assert message in str(raised.value)
    assert str(file) in str(raised.value)


def test_infinity_is_a_limit_that_some_models_state(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mamba2", "time_step_limit": [0.0, Infinity]}')
    assert read_config(tmp_path)["time_step_limit"] == [0.0, float("inf")]


def test_refuses_places(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_config(tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        read_config(tmp_path)
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ConfigError, match="not a regular file"):
        read_config(tmp_path)


class TestView:
    def test_what_the_json_states(self, llama: Path) -> None:
        view = config_view(llama)
        assert (view.model_type, view.hidden_size, view.tie_word_embeddings) == ("llama", 16, False)
        assert view.torch_dtype == view.dtype == "float32"

    def test_what_it_does_not_state_is_that_of_transformers(self, llama: Path) -> None:
        from transformers import AutoConfig

        view, real = config_view(llama), AutoConfig.from_pretrained(llama)
        for name in ("max_position_embeddings", "head_dim", "hidden_act", "rope_parameters", "attention_bias"):
            assert getattr(view, name) == getattr(real, name)

    def test_null_is_a_question_too(self, llama: Path) -> None:
        data = {**read_config(llama), "num_key_value_heads": None, "pad_token_id": None}
        view = config_view(data)
        assert view.num_key_value_heads == 4
        assert view.pad_token_id is None

    def test_aliases(self) -> None:
        assert config_view({"model_type": "gpt2", "n_embd": 24}).hidden_size == 24

    def test_unknown_attributes(self, llama: Path) -> None:
        view = config_view(llama)
        with pytest.raises(AttributeError, match="no_such_thing"):
            view.no_such_thing
        assert getattr(view, "no_such_thing", 5) == 5
        assert not hasattr(config_view({"model_type": "no_such_type"}), "hidden_size")
        with pytest.raises(AttributeError, match="no_such_type"):
            config_view({"model_type": "no_such_type"}).hidden_size

    def test_values_that_transformers_refuses(self) -> None:
        with pytest.raises(ConfigError, match="transformers refuses this 'llama' configuration"):
            config_view({"model_type": "llama", "hidden_size": "wide"}).head_dim

    def test_nested(self) -> None:
        from transformers import Qwen3VLConfig

        text = {"model_type": "qwen3_vl_text", "hidden_size": 64, "num_hidden_layers": 3}
        view = config_view({"model_type": "qwen3_vl", "text_config": text, "quantization_config": {"bits": 4}})
        assert view.text_config.num_hidden_layers == 3
        real = Qwen3VLConfig(text_config=text)
        assert view.text_config.num_attention_heads == real.text_config.num_attention_heads
        assert view.vision_config.depth == real.vision_config.depth
        assert view.quantization_config == {"bits": 4}

    def test_a_layer_of_a_class_whose_layers_differ(self) -> None:
        """Published files of Gemma 4 name both sizes; that layers differ by them is said by its class."""
        types = ["sliding_attention", "full_attention"]
        data = {"model_type": "gemma4_text", "head_dim": 8, "num_key_value_heads": 2, "layer_types": types}
        view = config_view({**data, "num_hidden_layers": 2, "attention_k_eq_v": True} | {"global_head_dim": 16})
        assert [layer_view(view, index).head_dim for index in range(2)] == [8, 16]

    def test_cannot_be_changed(self, llama: Path) -> None:
        view = config_view({**read_config(llama), "layer_types": ["full_attention", "full_attention"]})
        with pytest.raises(AttributeError, match="read-only"):
            view.hidden_size = 3
        with pytest.raises(AttributeError, match="read-only"):
            del view.hidden_size
        view.layer_types.append("x")
        view.to_dict()["hidden_size"] = 3
        assert (view.layer_types, view.hidden_size) == (["full_attention"] * 2, 16)

    def test_block_configs_are_not_part_of_it(self, converted: Path) -> None:
        assert "block_configs" not in config_view(converted)
        assert not hasattr(config_view(converted).resolve(), "block_configs")

    def test_copies_and_pickles(self, llama: Path) -> None:
        view = config_view(
            {"model_type": "qwen3_vl", "text_config": {"model_type": "qwen3_vl_text", "hidden_size": 64}}
        )
        for twin in (pickle.loads(pickle.dumps(view)), copy.deepcopy(view)):
            assert twin == view
            assert twin.text_config.head_dim == view.text_config.head_dim
        assert view != config_view(llama)

    def test_stays_without_transformers(self, llama: Path) -> None:
        code = f"""
import json, sys
from anyblock.checkpoint import config_view
view = config_view({str(llama)!r})
view.hidden_size, view.num_key_value_heads, repr(view), hasattr(view, "__len__")
print(json.dumps(["transformers" in sys.modules, "torch" in sys.modules]))
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == [False, False]

    def test_remote_code_runs_only_when_it_is_trusted(self, tmp_path: Path) -> None:
        code = """
from pathlib import Path
from transformers import PreTrainedConfig
Path(__file__).parent.joinpath("ran").touch()
class OwnConfig(PreTrainedConfig):
    model_type = "own"
    depth = 7
"""
        (tmp_path / "configuration_own.py").write_text(code)
        config = {"model_type": "own", "auto_map": {"AutoConfig": "configuration_own.OwnConfig"}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(InputError, match=r"wants to run code that comes with it: configuration_own\.py"):
            config_view(tmp_path)
        assert not (tmp_path / "ran").exists()
        with trusting():
            assert config_view(tmp_path).depth == 7
        with pytest.raises(InputError, match=r"configuration_own\.py"):
            config_view(tmp_path)  # what has run once is not allowed for good


def test_infinity_as_transformers_writes_it_is_understood(tmp_path: Path) -> None:
    from transformers import NemotronHConfig

    config = NemotronHConfig(layers_block_type=["mamba", "mlp"], time_step_limit=(0.0, float("inf")))
    config.save_pretrained(tmp_path)
    assert "__float__" in (tmp_path / "config.json").read_text()
    assert config_view(tmp_path).num_hidden_layers == 2
