"""Conversion: bytes stay what they are, everything is checked before anything is written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from anyblock import convert_model, load_model
from anyblock.checkpoint import SourceCheckpoint, SubblockCheckpoint, SubblockWriter
from anyblock.checkpoint.classify import classify
from anyblock.checkpoint.safetensors_writer import Stored
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig
from anyblock.contract.hookspecs import hookimpl
from anyblock.conversion.convert import convert_with
from anyblock.descriptors import DenseDescriptor
from anyblock.errors import (
    AnyBlockError,
    CheckpointError,
    ConfigError,
    ExecutionError,
    InputError,
    OutputExistsError,
    PluginError,
    UnsupportedModelError,
    UsageError,
)
from anyblock.family import ModelFamily
from hypothesis import given, settings
from hypothesis import strategies as st

INDEX = "model.safetensors.index.json"
Edit = Callable[[Path, Callable[[Any], Any]], None]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def family(**methods: Any) -> ModelFamily:
    """Return a dense family with some hooks replaced."""
    hooks = {name: hookimpl(method) for name, method in methods.items()}
    return ModelFamily.from_descriptor(type("Descriptor", (DenseDescriptor,), hooks)(), model_type="llama")


class TestResult:
    @pytest.mark.parametrize("shards", [1, 3])
    def test_bytes_and_groups(self, tmp_path: Path, tools: Any, shards: int) -> None:
        source = tools.write_checkpoint(tmp_path / "in", tools.llama_spec(), tools.llama_config(), shards=shards)
        out = convert_model(source, tmp_path / "out", "llama")
        assert out == tmp_path / "out"
        assert tools.all_bytes(out) == tools.all_bytes(source)
        groups = SubblockCheckpoint.open(out).groups
        halves = [f"block_{index}_{half}" for index in (0, 1) for half in ("attention", "ffn")]
        assert list(groups) == [*halves, "embeddings", "lm_head"]
        assert set(groups["lm_head"]) == {"lm_head.weight", "model.norm.weight"}
        assert set(groups["block_1_ffn"]) == {
            f"model.layers.1.{name}.weight"
            for name in ("mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", "post_attention_layernorm")
        }
        index = json.loads((out / INDEX).read_text())
        total = sum(len(data) for _, _, data in tools.all_bytes(out).values())
        assert index["metadata"]["total_size"] == total
        for name, file in index["weight_map"].items():
            assert name in groups[Path(file).stem]

    def test_config(self, llama: Path, tmp_path: Path, edit_json: Edit) -> None:
        edit_json(llama / "config.json", lambda c: c.update({"zebra": 1e-05, "a": [1.0, None, True], "ü": "ü"}))
        out = convert_model(llama, tmp_path / "out")
        written, original = (
            json.loads((out / "config.json").read_text()),
            json.loads((llama / "config.json").read_text()),
        )
        blocks = written.pop("block_configs")
        assert written == original
        assert list(written) == list(original)
        block = BlockConfig(attention=AttentionConfig(num_key_value_heads=2), ffn=FFNConfig(intermediate_size=24))
        assert blocks == [block.to_dict()] * 2

    @pytest.mark.parametrize(("stored", "stated"), [("BF16", "bfloat16"), ("F32", "float32")])
    def test_a_config_that_does_not_state_the_weights_type(self, tmp_path: Path, tools: Any, stored: str, stated: str):
        config = tools.llama_config() | {"dtype": None}
        source = tools.write_checkpoint(tmp_path / "in", tools.llama_spec(dtype=stored), config)
        out = convert_model(source, tmp_path / "out")
        assert json.loads((out / "config.json").read_text())["torch_dtype"] == stated
        assert str(load_model(out).dtype) == f"torch.{stated}"

    def test_from_pretrained_gives_the_same_model(self, tmp_path: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, attention_bias=True, mlp_bias=True, tie_word_embeddings=True,
        )  # fmt: skip
        model = LlamaForCausalLM(config).bfloat16()
        model.save_pretrained(tmp_path / "in", max_shard_size="5KB")
        out = convert_model(tmp_path / "in", tmp_path / "out")
        source = AutoModelForCausalLM.from_pretrained(tmp_path / "in", dtype="auto")
        loaded = AutoModelForCausalLM.from_pretrained(out, dtype="auto")
        assert loaded.state_dict().keys() == source.state_dict().keys()
        for name, tensor in loaded.state_dict().items():
            assert tensor.dtype == torch.bfloat16
            assert torch.equal(tensor, source.state_dict()[name])
        tokens = torch.arange(8)[None]
        assert torch.equal(loaded(tokens).logits, source(tokens).logits)

    def test_other_files_go_along(self, llama: Path, tmp_path: Path) -> None:
        kept = [
            "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
            "merges.txt", "generation_config.json", "chat_template.jinja", "additional_chat_templates/tool.jinja",
            "modeling_own.py", "package/__init__.py", "LICENSE", "README.md", "qwen.tiktoken", "preprocessor_config.json",
        ]  # fmt: skip
        left = [
            "pytorch_model.bin", "training_args.bin", "model.pt", "consolidated.00.pth", "consolidated.safetensors",
            "model-q4.gguf", "original/params.json", "onnx/model.onnx", "onnx/config.json", "tf_model.h5", "rng_state.pth",
            "flax_model.msgpack", "pytorch_model.bin.index.json", "other.safetensors", ".gitattributes", ".cache/x.json",
            "__pycache__/x.py", "checkpoint-10/trainer_state.json", "adapter_model.safetensors",
        ]  # fmt: skip
        for name in kept + left:
            file = llama / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(os.urandom(20))
        out = convert_model(llama, tmp_path / "out")
        groups = {path for path in files(out) if path.startswith("subblocks_safetensors/")}
        assert files(out) - groups == {*kept, "config.json", INDEX}
        for name in kept:
            assert (out / name).read_bytes() == (llama / name).read_bytes()

    def test_a_subblock_checkpoint_converts_to_itself(self, converted: Path, tmp_path: Path) -> None:
        (converted / "kept.json").write_text("{}")
        again = convert_model(converted, tmp_path / "again")
        assert files(again) == files(converted)
        for name in files(again):
            assert (again / name).read_bytes() == (converted / name).read_bytes()

    def test_a_child_keeps_its_block_configs(self, converted: Path, tmp_path: Path, edit_json: Edit) -> None:
        def remove(config: Any) -> None:
            config["block_configs"][1]["ffn"] = {"no_op": True}

        edit_json(converted / "config.json", remove)
        file = "subblocks_safetensors/block_1_ffn.safetensors"
        (converted / file).unlink()

        def forget(index: Any) -> None:
            index["weight_map"] = {name: place for name, place in index["weight_map"].items() if place != file}

        edit_json(converted / INDEX, forget)
        child = SubblockCheckpoint.open(convert_model(converted, tmp_path / "again"))
        assert child.block_configs == SubblockCheckpoint.open(converted).block_configs
        assert child.block_configs[1].ffn.no_op
        assert "block_1_ffn" not in child.groups

    def test_progress_counts_every_byte(self, llama: Path, tmp_path: Path) -> None:
        (llama / "tokenizer.json").write_text("x" * 1000)
        told: list[Any] = []

        class Told:
            def task(self, description: str, *, total: int, unit: str) -> Any:
                from contextlib import nullcontext

                told.append((total, unit))
                return nullcontext(told.append)

            def note(self, message: str) -> None:
                told.append(message)

        out = convert_model(llama, tmp_path / "out", progress=Told())
        (total, unit), *steps = told
        assert unit == "bytes"
        assert total == sum(steps) == json.loads((out / INDEX).read_text())["metadata"]["total_size"] + 1000

    def test_memory_does_not_grow_with_the_checkpoint(self, llama: Path, tmp_path: Path, tools: Any) -> None:
        sizes = {"hidden": 512, "ffn": 2048, "vocab": 4096}
        large = tools.write_checkpoint(
            tmp_path / "large", tools.llama_spec(6, **sizes), tools.llama_config(6, **sizes), shards=2
        )
        code = f"""
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
from anyblock import convert_model
convert_model({str(llama)!r}, {str(tmp_path / "small-out")!r})
before = peak()
convert_model({str(large)!r}, {str(tmp_path / "large-out")!r})
print(peak() - before)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert sum(file.stat().st_size for file in large.glob("*.safetensors")) > 100_000_000
        assert int(done.stdout) < 20_000


KINDS = ["F32", "BF16", "U8", "I64", "F64", "F16"]


@settings(deadline=None, derandomize=True, max_examples=15)
@given(data=st.data())
def test_any_set_of_tensors_keeps_its_bytes(tools: Any, data: st.DataObject) -> None:
    layers = data.draw(st.integers(1, 3))
    required = ["model.embed_tokens.weight"]
    required += [f"model.layers.{i}.{m}.weight" for i in range(layers) for m in ("self_attn.x", "mlp.x")]
    place = st.sampled_from(
        ["model.norm", "lm_head"] + [f"model.layers.{i}.{m}" for i in range(layers) for m in ("mlp", "self_attn")]
    )
    optional = st.builds("{}.{}".format, place, st.text("abz_.", min_size=1, max_size=5))
    names = data.draw(st.permutations(required + data.draw(st.lists(optional, max_size=10))))
    shape = st.lists(st.integers(0, 5), max_size=3).map(tuple)
    spec = {name: data.draw(st.tuples(st.sampled_from(KINDS), shape)) for name in names}
    shards = data.draw(st.integers(1, min(3, len(spec))))
    with tempfile.TemporaryDirectory() as name:
        source = SourceCheckpoint.open(
            tools.write_checkpoint(Path(name, "in"), spec, tools.llama_config(layers), shards=shards)
        )
        groups = classify(spec, family().layer_name_predicates(layers), family="llama")
        parts = {group: {n: Stored(*source.tensors[n]) for n in members} for group, members in groups.items()}
        out = Path(name, "out")
        out.mkdir()
        block = BlockConfig(attention=AttentionConfig(num_key_value_heads=2), ffn=FFNConfig(intermediate_size=24))
        writer = SubblockWriter(out, config=tools.llama_config(layers), block_configs=[block] * layers)
        writer.copy_parts(parts, {file: header.stamp for file, header in source.headers.items()})
        writer.finish()
        assert tools.all_bytes(out) == tools.all_bytes(source.path)
        checkpoint = SubblockCheckpoint.open(out)
        loaded = {n for group in checkpoint.groups for n in checkpoint.load(group)}
        assert loaded == spec.keys()


class TestRefusals:
    """Every refusal leaves nothing behind."""

    @pytest.fixture(autouse=True)
    def nothing_is_left(self, tmp_path: Path) -> Any:
        yield
        assert not [path for path in tmp_path.iterdir() if path.name.startswith((".out", "out"))]

    def test_tensors_of_no_group_and_of_several(self, tmp_path: Path, tools: Any) -> None:
        extra = {f"visual.{i}.weight": ("F32", (1,)) for i in range(30)}
        source = tools.write_checkpoint(tmp_path / "in", {**tools.llama_spec(), **extra}, tools.llama_config())

        def predicates(self: Any, num_layers: int, config: Any) -> dict[str, re.Pattern[str]]:
            groups = DenseDescriptor.layer_name_predicates(self, num_layers, config)
            return {**groups, "norms": re.compile(r".*norm\.weight")}

        with pytest.raises(CheckpointError) as raised:
            convert_with(family(layer_name_predicates=predicates), source, tmp_path / "out")
        text = str(raised.value)
        assert "no group takes 30 tensors: 'visual.0.weight', 'visual.1.weight'" in text
        assert "and 20 more" in text
        assert "more than one group takes 5 tensors" in text
        assert "'model.norm.weight' is in lm_head, norms" in text

    def test_a_pattern_has_to_match_the_whole_name(self, tmp_path: Path, tools: Any) -> None:
        spec = {**tools.llama_spec(), "xmodel.norm.weight": ("F32", (1,)), "lm_head.": ("F32", (1,))}
        source = tools.write_checkpoint(tmp_path / "in", spec, tools.llama_config())
        with pytest.raises(CheckpointError, match="no group takes 2 tensors"):
            convert_model(source, tmp_path / "out")

    @pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "x" * 101, "a\n", "ä"])
    def test_group_names_that_are_no_file_names(self, llama: Path, tmp_path: Path, name: str) -> None:
        def predicates(self: Any, num_layers: int, config: Any) -> dict[str, re.Pattern[str]]:
            return {**DenseDescriptor.layer_name_predicates(self, num_layers, config), name: re.compile("never")}

        with pytest.raises(AnyBlockError, match="name"):
            convert_with(family(layer_name_predicates=predicates), llama, tmp_path / "out")

    def test_a_half_without_tensors(self, tmp_path: Path, tools: Any) -> None:
        spec = {name: value for name, value in tools.llama_spec().items() if "layers.1.self_attn" not in name}
        del spec["model.layers.1.input_layernorm.weight"]
        source = tools.write_checkpoint(tmp_path / "in", spec, tools.llama_config())
        with pytest.raises(CheckpointError, match="holds no tensors of block_1_attention"):
            convert_model(source, tmp_path / "out")

    def test_more_layers_than_the_config_says(self, tmp_path: Path, tools: Any) -> None:
        source = tools.write_checkpoint(tmp_path / "in", tools.llama_spec(3), tools.llama_config(2))
        with pytest.raises(CheckpointError, match=r"no group takes 9 tensors: 'model\.layers\.2\."):
            convert_model(source, tmp_path / "out")

    @pytest.mark.parametrize("layers", [0, -1, "2", 2.0, True, [2]])
    def test_a_number_of_layers_that_is_none(self, llama: Path, tmp_path: Path, edit_json: Edit, layers: Any) -> None:
        edit_json(llama / "config.json", lambda config: config.update(num_hidden_layers=layers))
        with pytest.raises(ConfigError, match="num_hidden_layers is"):
            convert_model(llama, tmp_path / "out")

    def test_an_absurd_number_of_layers(self, llama: Path, tmp_path: Path, edit_json: Edit) -> None:
        edit_json(llama / "config.json", lambda config: config.update(num_hidden_layers=9_999))
        with pytest.raises(ConfigError, match="9,999, and the checkpoint has 21 tensors"):
            convert_model(llama, tmp_path / "out")

    @pytest.mark.parametrize("size", ["48", 48.0, True, {"a": 1}])
    def test_a_size_of_another_type(self, llama: Path, tmp_path: Path, edit_json: Edit, size: Any) -> None:
        edit_json(llama / "config.json", lambda config: config.update(intermediate_size=size))
        with pytest.raises(ConfigError, match=re.escape(f"intermediate_size is {size!r}")):
            convert_model(llama, tmp_path / "out")

    @pytest.mark.parametrize("size", [0, 1 << 31])
    def test_a_size_out_of_bounds(self, llama: Path, tmp_path: Path, edit_json: Edit, size: int) -> None:
        edit_json(llama / "config.json", lambda config: config.update(intermediate_size=size))
        with pytest.raises(ConfigError, match=rf"block_configs\[0\].ffn.intermediate_size is {size}"):
            convert_model(llama, tmp_path / "out")

    def test_a_list_of_sizes_that_is_too_short(self, llama: Path, tmp_path: Path, edit_json: Edit) -> None:
        edit_json(llama / "config.json", lambda config: config.update(intermediate_size=[48]))
        with pytest.raises(ConfigError, match="intermediate_size has 1 entries"):
            convert_model(llama, tmp_path / "out")

    def test_another_number_of_block_configs(self, converted: Path, tmp_path: Path, edit_json: Edit) -> None:
        edit_json(converted / "config.json", lambda config: config["block_configs"].pop())
        with pytest.raises(ConfigError, match="there are 1 block configs"):
            convert_model(converted, tmp_path / "out")

    def test_another_family(self, llama: Path, tmp_path: Path, edit_json: Edit) -> None:
        with pytest.raises(UsageError, match=r"'qwen3' was asked for, and .* is a 'llama' model"):
            convert_model(llama, tmp_path / "out", "qwen3")
        edit_json(llama / "config.json", lambda config: config.update(model_type="lllama"))
        with pytest.raises(UnsupportedModelError, match="lllama"):
            convert_model(llama, tmp_path / "out")

    def test_bad_inputs(self, llama: Path, tmp_path: Path) -> None:
        for given_path in (tmp_path / "absent", llama / "config.json"):
            with pytest.raises(InputError):
                convert_model(given_path, tmp_path / "out")
        (llama / "config.json").unlink()
        with pytest.raises(ConfigError, match=r"has no config\.json"):
            convert_model(llama, tmp_path / "out")

    def test_companions_that_are_no_files(self, llama: Path, tmp_path: Path) -> None:
        for make, message in (
            (lambda path: os.mkfifo(path), "is not a regular file"),
            (lambda path: path.symlink_to(llama / "nothing"), "is not a regular file"),
            (lambda path: path.symlink_to("/etc/hostname"), "leads outside"),
            (lambda path: path.symlink_to("/etc"), "leads outside"),
            (lambda path: path.symlink_to("."), "is a link to a directory"),
        ):
            make(llama / "x.json")
            with pytest.raises(CheckpointError, match=message):
                convert_model(llama, tmp_path / "out")
            (llama / "x.json").unlink()

    def test_an_output_inside_the_input(self, llama: Path) -> None:
        for place in (llama, llama / "out", llama.parent):
            with pytest.raises(InputError, match="overlaps the input"):
                convert_with(family(), llama, place, overwrite=True)

    def test_a_full_disk(self, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import shutil

        real = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=1000))
        with pytest.raises(ExecutionError, match=r"1\.0 kB free"):
            convert_model(llama, tmp_path / "out")

    def test_a_disk_that_fills_up(self, llama: Path, tmp_path: Path) -> None:
        code = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
from anyblock import convert_model
from anyblock.errors import ExecutionError
try:
    convert_model({str(llama)!r}, {str(tmp_path / "out")!r})
except ExecutionError as error:
    print(error.what)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "out was not written: File too large" in done.stdout, done.stderr

    def test_damaged_weights(self, llama: Path, tmp_path: Path) -> None:
        os.truncate(llama / "model.safetensors", 5000)
        with pytest.raises(CheckpointError, match="ends at byte"):
            convert_model(llama, tmp_path / "out")


def test_an_existing_output(llama: Path, converted: Path, tools: Any) -> None:
    (converted / "mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="overwrite"):
        convert_model(llama, converted)
    assert (converted / "mine.txt").exists()
    convert_model(llama, converted, overwrite=True)
    assert not (converted / "mine.txt").exists()
    assert tools.all_bytes(converted) == tools.all_bytes(llama)
    assert sorted(path.name for path in converted.parent.iterdir()) == ["converted", "llama"]


class TestHooks:
    """Families that rename and dequantize."""

    def test_renaming_keeps_bytes(self, tmp_path: Path, tools: Any) -> None:
        spec = {f"transformer.{name}": value for name, value in tools.llama_spec().items()}
        source = tools.write_checkpoint(tmp_path / "in", spec, tools.llama_config())

        def rename(self: Any, name: str) -> str:
            return name.removeprefix("transformer.")

        out = convert_with(family(convert_weight_name=rename), source, tmp_path / "out")
        before = {name.removeprefix("transformer."): value for name, value in tools.all_bytes(source).items()}
        assert tools.all_bytes(out) == before

    def test_two_tensors_may_not_get_one_name(self, llama: Path, tmp_path: Path) -> None:
        def rename(self: Any, name: str) -> str:
            return name.replace("up_proj", "gate_proj")

        with pytest.raises(CheckpointError, match="would both be stored as"):
            convert_with(family(convert_weight_name=rename), llama, tmp_path / "out")

    @pytest.fixture
    def quantized(self, tmp_path: Path, tools: Any) -> Path:
        spec = dict(tools.llama_spec(dtype="BF16"))
        for name in [name for name in spec if "_proj" in name]:
            _, shape = spec[name]
            spec[name] = ("U8", shape)
            spec[f"{name}_scale"] = ("F32", (shape[0], 1))
        config = {**tools.llama_config(), "quantization_config": {"quant_method": "own"}}
        return Path(tools.write_checkpoint(tmp_path / "in", spec, config, shards=2))

    def test_dequantizing(self, quantized: Path, tmp_path: Path) -> None:
        import torch
        from safetensors.torch import load_file

        def dequantize(self: Any, names: Sequence[str]) -> Mapping[str, Sequence[str]]:
            return {name: (name, f"{name}_scale") for name in names if f"{name}_scale" in names}

        def compute(self: Any, name: str, sources: Mapping[str, torch.Tensor]) -> torch.Tensor:
            return (sources[name].float() * sources[f"{name}_scale"]).T.contiguous().T.bfloat16()

        out = convert_with(family(dequantize=dequantize, dequantize_tensor=compute), quantized, tmp_path / "out")
        before = {n: t for file in quantized.glob("*.safetensors") for n, t in load_file(file).items()}
        after = {n: t for file in out.rglob("*.safetensors") for n, t in load_file(file).items()}
        assert after.keys() == {name for name in before if not name.endswith("_scale")}
        for name, tensor in after.items():
            expected = before[name]
            if f"{name}_scale" in before:
                expected = (expected.float() * before[f"{name}_scale"]).bfloat16()
            assert tensor.dtype == expected.dtype == torch.bfloat16
            assert torch.equal(tensor.view(torch.int16), expected.view(torch.int16))
        assert "quantization_config" not in json.loads((out / "config.json").read_text())
        assert not [name for name in files(out) if "computed" in name]

    def test_a_failing_computation_leaves_nothing(self, quantized: Path, tmp_path: Path) -> None:
        def dequantize(self: Any, names: Sequence[str]) -> Mapping[str, Sequence[str]]:
            return {name: (name, f"{name}_scale") for name in names if f"{name}_scale" in names}

        def compute(self: Any, name: str, sources: Mapping[str, Any]) -> Any:
            if "layers.1" in name:
                raise ZeroDivisionError
            return sources[name].bfloat16()

        with pytest.raises(PluginError, match="dequantize_tensor"):
            convert_with(family(dequantize=dequantize, dequantize_tensor=compute), quantized, tmp_path / "out")
        assert [path.name for path in tmp_path.iterdir()] == ["in"]

    def test_quantized_weights_without_that_hook_are_refused(self, quantized: Path, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"holds quantised weights \(own\)"):
            convert_with(family(), quantized, tmp_path / "out")

    def test_sources_that_do_not_exist(self, llama: Path, tmp_path: Path) -> None:
        def dequantize(self: Any) -> Mapping[str, Sequence[str]]:
            return {"model.norm.weight": ("absent",)}

        with pytest.raises(PluginError, match="absent"):
            convert_with(family(dequantize=dequantize), llama, tmp_path / "out")
