"""Every way to a model finds every parameter in the file or refuses by name, before anything is computed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock import convert_model, get_family, load_model
from anyblock.checkpoint.hub import resolve_model
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.cli import main
from anyblock.contract.services import services
from anyblock.errors import CheckpointError, InputError
from anyblock.export.export import export_child
from anyblock.modeling.complete import require_complete
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.modeling.skeleton import build_skeleton, load_hf_config
from anyblock.run.model_source import read_source
from safetensors.torch import load_file, save_file

Edit = Callable[[dict[str, torch.Tensor]], object]
K_PROJ = "model.layers.1.self_attn.k_proj.weight"
MISSING = [
    K_PROJ,
    "model.layers.1.self_attn.o_proj.weight",
    "model.layers.1.self_attn.q_proj.bias",
    "model.layers.2.mlp.up_proj.weight",
    "model.layers.0.input_layernorm.weight",
    "model.norm.weight",
    "lm_head.weight",
]


def edited(source: Path, target: Path, change: Edit) -> Path:
    """Copy an ordinary directory or a subblock checkpoint, with the tensors of each file and its index changed."""
    shutil.copytree(source, target)
    index = target / "model.safetensors.index.json"
    weight_map: dict[str, str] = {}
    for file in sorted(target.rglob("*.safetensors")):
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file, {"format": "pt"})
        weight_map |= dict.fromkeys(tensors, str(file.relative_to(target)))
    if index.is_file():
        index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return target


def without(name: str) -> Edit:
    return lambda tensors: tensors.pop(name, None)


def model_of(family: str, **sizes: Any) -> Any:
    """Return a tiny model with weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    common = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **common, **sizes)).eval()


def check(folder: Path) -> None:
    """Hold the tensors in a directory of transformers to the stock model."""
    tensors = {name: tensor.to("meta") for name, tensor in load_file(folder / "model.safetensors").items()}
    require_complete(build_skeleton(None, load_hf_config(folder), []), tensors, str(folder))


@pytest.mark.parametrize("name", MISSING)
def test_an_ordinary_directory_that_lacks_a_tensor(llama_dir: Path, tmp_path: Path, name: str) -> None:
    bad = edited(llama_dir, tmp_path / "bad", without(name))
    for use in (
        lambda: convert_model(bad, tmp_path / "out"),
        lambda: read_source(bad),
        lambda: load_model(bad),
    ):
        with pytest.raises(CheckpointError, match=f"bad: it lacks 1 tensor: '{name}'"):
            use()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", MISSING)
def test_a_subblock_checkpoint_that_lacks_a_tensor(teacher_dir: Path, tmp_path: Path, name: str) -> None:
    bad, family = edited(teacher_dir, tmp_path / "bad", without(name)), get_family("llama")

    for use in (
        lambda: convert_model(bad, tmp_path / "out"),
        lambda: read_source(bad),
        lambda: load_model(bad),
        lambda: load_model(bad, attn_implementation="sdpa"),
        lambda: LayerwiseModel(SubblockCheckpoint.open(bad), family),
        lambda: export_child(bad, tmp_path / "out", "transformers"),
        lambda: services().prepare_child(bad).__enter__(),
    ):
        with pytest.raises(CheckpointError, match=f"bad: it lacks 1 tensor: '{name}'"):
            use()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "MODEL"],
        ["convert", "MODEL", "OUT"],
        ["compress", "MODEL", "OUT", "--budget", "params=0.8x", "--data", "TEXT"],
        ["evaluate", "MODEL", "--data", "TEXT"],
        ["generate", "MODEL", "a"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_command_names_it(
    llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    bad, text = edited(llama_dir, tmp_path / "bad", without(K_PROJ)), tmp_path / "text.txt"
    text.write_text("a text that is long enough for a window. " * 100)
    places = {"MODEL": str(bad), "OUT": str(tmp_path / "out"), "TEXT": str(text)}
    with pytest.raises(SystemExit) as ended:
        main([places.get(argument, argument) for argument in arguments])
    assert ended.value.code == 2
    assert f"it lacks 1 tensor: '{K_PROJ}'" in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


def double(tensors: dict[str, torch.Tensor]) -> None:
    if "model.norm.weight" in tensors:
        tensors["norm.weight"] = tensors["model.norm.weight"].clone()


def narrow(tensors: dict[str, torch.Tensor]) -> None:
    if K_PROJ in tensors:
        tensors[K_PROJ] = tensors[K_PROJ][:-1].contiguous()


def integers(tensors: dict[str, torch.Tensor]) -> None:
    if K_PROJ in tensors:
        tensors[K_PROJ] = tensors[K_PROJ].to(torch.int8)


def further(tensors: dict[str, torch.Tensor]) -> None:
    if K_PROJ in tensors:
        tensors[K_PROJ.replace("k_proj", "z_proj")] = torch.ones(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (double, r"'model\.norm\.weight' and 'norm\.weight' are both 'model\.norm\.weight'"),
        (narrow, rf"'{K_PROJ}' has the shape \(15, 32\) and not \(16, 32\)"),
        (integers, f"'{K_PROJ}' is stored as int8"),
        (further, r"no place for 1 tensor: 'model\.layers\.1\.self_attn\.z_proj\.weight'"),
    ],
)
def test_other_tensors_than_the_models(llama_dir: Path, tmp_path: Path, change: Edit, message: str) -> None:
    bad = edited(llama_dir, tmp_path / "bad", change)
    for use in (lambda: convert_model(bad, tmp_path / "out"), lambda: read_source(bad), lambda: load_model(bad)):
        with pytest.raises(CheckpointError, match=message):
            use()


@pytest.mark.parametrize("fused", [False, True], ids=["published", "fused"])
def test_an_expert_that_is_missing(tmp_path: Path, fused: bool) -> None:
    model = model_of("mixtral", intermediate_size=48, num_key_value_heads=2, num_local_experts=4)
    model.save_pretrained(tmp_path / "good", save_original_format=not fused)
    check(tmp_path / "good")
    if fused:
        name = "model.layers.1.mlp.experts.down_proj"
        published = r"it lacks 4 tensors: 'model\.layers\.1\.block_sparse_moe\.experts\.0\.w2\.weight'"
        bad = edited(tmp_path / "good", tmp_path / "bad", without(name))
        with pytest.raises(CheckpointError, match=published):
            check(bad)
        return
    for index, matrix in ((2, "w1"), (3, "w2")):
        name = f"model.layers.1.block_sparse_moe.experts.{index}.{matrix}.weight"
        bad = edited(tmp_path / "good", tmp_path / f"bad{index}", without(name))
        with pytest.raises(CheckpointError, match=rf"bad{index}: it lacks 1 tensor: '{name}'\n"):
            check(bad)


def test_a_stored_buffer_that_is_missing(tmp_path: Path) -> None:
    experts = {
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "first_k_dense_replace": 1,
    }
    latent = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
    sizes = {"intermediate_size": 48, "moe_intermediate_size": 16, "num_key_value_heads": 4}
    model_of("deepseek_v3", **experts, **latent, **sizes).save_pretrained(tmp_path / "good")
    check(tmp_path / "good")
    name = "model.layers.1.mlp.gate.e_score_correction_bias"
    bad = edited(tmp_path / "good", tmp_path / "bad", without(name))
    with pytest.raises(CheckpointError, match=f"it lacks 1 tensor: '{name}'"):
        check(bad)


def test_what_may_be_absent_or_there(tmp_path: Path) -> None:
    """A tied head, and rotary frequencies that old files have in every layer."""
    model = model_of("llama", intermediate_size=48, tie_word_embeddings=True)
    model.save_pretrained(tmp_path / "tied")
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")

    def old(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)

    def other_name(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")

    ids = torch.tensor([[1, 2, 3]])
    for number, change in enumerate((old, other_name)):
        folder = edited(tmp_path / "tied", tmp_path / str(number), change)
        check(folder)
        assert torch.equal(load_model(folder)(ids).logits, model(ids).logits)
    converted = convert_model(tmp_path / "0", tmp_path / "converted")
    assert torch.equal(load_model(converted)(ids).logits, model(ids).logits)
    with pytest.raises(CheckpointError, match=r"lacks 2 tensors: 'lm_head\.weight', 'model\.embed_tokens\.weight'"):
        check(edited(tmp_path / "tied", tmp_path / "neither", without("model.embed_tokens.weight")))


@pytest.mark.parametrize("options", [{}, {"save_original_format": False}], ids=["published", "fused"])
def test_mixtral_as_two_versions_of_transformers_write_it(tmp_path: Path, options: dict[str, bool]) -> None:
    model = model_of("mixtral", intermediate_size=48, num_key_value_heads=2, num_local_experts=4)
    model.save_pretrained(tmp_path / "in", **options)
    converted = SubblockCheckpoint.open(convert_model(tmp_path / "in", tmp_path / "out"))
    assert len([name for name in converted.groups["block_1_ffn"] if ".experts." in name]) == 12
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(load_model(converted.path)(ids).logits, model(ids).logits)


def test_names_without_the_base_models_prefix(llama_dir: Path, tmp_path: Path, ids: torch.Tensor) -> None:
    def strip(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("model.")] = tensors.pop(name)

    other = edited(llama_dir, tmp_path / "in", strip)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaModel"]}))
    expected = load_model(llama_dir)(ids).logits
    assert torch.equal(load_model(other)(ids).logits, expected)
    assert torch.equal(load_model(convert_model(other, tmp_path / "out"))(ids).logits, expected)
    with pytest.raises(CheckpointError, match=r"lacks 1 tensor: 'lm_head\.weight'"):
        convert_model(edited(other, tmp_path / "headless", without("lm_head.weight")), tmp_path / "no")


def packed(method: str, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the tensors, by what follows the map's name, that a method stores in place of a weight."""
    out, width = weight.shape
    codes, scales, half = torch.zeros(width, out // 8, dtype=torch.int32), torch.ones(out, 1), torch.uint8
    pairs = torch.zeros(out, width // 2, dtype=half)
    return {
        "awq": {"qweight": codes, "qzeros": codes[:1].clone(), "scales": scales},
        "gptq": {"qweight": codes, "qzeros": codes[:1].clone(), "g_idx": torch.zeros(width, dtype=torch.int32)},
        "bitsandbytes": {"weight": torch.zeros(out * width // 2, 1, dtype=half), "weight.absmax": scales[:, 0].clone()},
        "compressed-tensors": {"weight_packed": pairs, "weight_scale": scales, "weight_global_scale": torch.ones(1)},
        "modelopt": {"weight": pairs, "weight_scale": scales, "weight_scale_2": torch.ones(())},
        "hqq": {"W_q": pairs, "scale": scales, "zero": scales.clone()},
        "eetq": {"weight": torch.zeros(width, out, dtype=torch.int8), "weight_scales": scales[:, 0].clone()},
        "quanto": {"weight._data": pairs, "weight._scale": scales, "input_scale": torch.ones(())},
        "torchao": {"_weight_qdata": pairs, "_weight_scale": scales},
        "mxfp4": {"weight_blocks": pairs, "weight_scales": torch.zeros(out, 1, dtype=half)},
    }[method]  # fmt: skip


def test_methods_of_quantisation_are_named_with_what_to_do(llama_dir: Path, tmp_path: Path) -> None:
    """Wherever it is said: in `config.json`, in a file of its own, or by the names of the tensors alone."""
    by_names = {"awq": "awq or gptq", "modelopt": "nvfp4", "compressed-tensors": "nvfp4"}
    files: dict[str, tuple[str, dict[str, Any]]] = {
        "awq": ("quant_config.json", {"w_bit": 4, "version": "GEMM"}),
        "gptq": ("quantize_config.json", {"bits": 4, "desc_act": False}),
        "modelopt": ("hf_quant_config.json", {"quantization": {"quant_algo": "NVFP4"}}),
    }
    plain = json.loads((llama_dir / "config.json").read_text())
    for method in [
        "awq",
        "gptq",
        "bitsandbytes",
        "compressed-tensors",
        "modelopt",
        "hqq",
        "eetq",
        "quanto",
        "torchao",
        "mxfp4",
    ]:

        def quantise(tensors: dict[str, torch.Tensor], method: str = method) -> None:
            for name in [name for name in tensors if name.endswith("down_proj.weight")]:
                stem = name.removesuffix("weight")
                tensors |= {stem + own: tensor for own, tensor in packed(method, tensors.pop(name)).items()}

        bad, out = edited(llama_dir, tmp_path / method, quantise), tmp_path / "out"
        settings = {"quant_method": method, "format": "nvfp4-pack-quantized"}
        said = "compressed-tensors, nvfp4-pack-quantized" if method == "compressed-tensors" else method
        ways = [("config.json", {**plain, "quantization_config": settings}, said)]
        ways += [("config.json", plain, f"{by_names.get(method, method)}, by the names of its tensors")]
        if method in files:
            ways += [(*files[method], f"{method}, NVFP4" if method == "modelopt" else method)]
        for file, content, named in ways:
            (bad / file).write_text(json.dumps(content))
            for use in (lambda: convert_model(bad, out), lambda: read_source(bad)):  # noqa: B023
                with pytest.raises(CheckpointError) as raised:
                    use()
                assert f"{method} holds quantised weights ({named}):" in raised.value.what
                assert "use the model that was quantised" in raised.value.hint
        assert not out.exists()
    with pytest.raises(CheckpointError, match=r"awq holds quantised weights \(awq\)"):
        load_model(tmp_path / "awq")


def test_what_compressed_tensors_does_beyond_numbers_and_scales_is_refused_by_name(
    llama_dir: Path, tmp_path: Path
) -> None:
    source = edited(llama_dir, tmp_path / "in", lambda tensors: None)
    config = json.loads((source / "config.json").read_text())
    cases: dict[str, dict[str, Any]] = {
        "kv_cache_scheme": {"format": "float-quantized", "kv_cache_scheme": {"num_bits": 8, "type": "float"}},
        "transform_config": {"format": "dense", "transform_config": {"config_groups": {"u": {"type": "hadamard"}}}},
        "sparse-24-bitmask": {"format": "dense", "sparsity_config": {"format": "sparse-24-bitmask"}},
        "marlin-24": {"format": "marlin-24"},
        "mxfp4-pack-quantized": {
            "format": "mixed-precision",
            "config_groups": {"u": {"format": "mxfp4-pack-quantized"}},
        },
    }

    def cast(tensors: dict[str, torch.Tensor]) -> None:
        tensors[K_PROJ] = tensors[K_PROJ].to(torch.float8_e4m3fn)
        tensors[f"{K_PROJ}_scale"] = torch.ones(1)

    for name, settings in cases.items():
        own = source if name == "transform_config" else edited(source, tmp_path / name, cast)
        stated = {**config, "quantization_config": {"quant_method": "compressed-tensors", **settings}}
        (own / "config.json").write_text(json.dumps(stated))
        with pytest.raises(CheckpointError, match=rf"holds quantised weights \(compressed-tensors, {name}\)"):
            read_source(own)


def test_a_gguf_file_is_named_with_what_to_do(llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file, alone in a folder, and next to a `config.json`; nothing of its content is read."""
    folder = tmp_path / "gguf"
    folder.mkdir()
    file = folder / "model-q4_k.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(InputError) as as_a_model:
        resolve_model(str(file))
    found = [as_a_model]
    for place in (file, folder, folder):
        with pytest.raises(InputError) as converted:
            convert_model(place, tmp_path / "out")
        found.append(converted)
        shutil.copy(llama_dir / "config.json", folder)
    for raised in found:
        assert f"`anyblock from-gguf {file} FOLDER` makes a checkpoint of it" in raised.value.hint
    monkeypatch.setattr("anyblock.checkpoint.files.find_spec", lambda name: None)
    with pytest.raises(InputError) as missing:
        read_source(folder.parent / "gguf" / file.name)
    assert missing.value.hint.startswith("python -m pip install anyblock-gguf; then `anyblock from-gguf")
    assert not (tmp_path / "out").exists()


def test_plain_weights_whose_config_still_calls_them_quantised(llama_dir: Path, tmp_path: Path) -> None:
    """Tensors are believed: the entry goes, so that nothing looks for scales later."""
    source = edited(llama_dir, tmp_path / "in", lambda tensors: None)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "awq"}}))
    out = convert_model(source, tmp_path / "out")
    assert "quantization_config" not in json.loads((out / "config.json").read_text())

    def cast(tensors: dict[str, torch.Tensor]) -> None:
        tensors[K_PROJ] = tensors[K_PROJ].to(torch.float8_e4m3fn)

    with pytest.raises(CheckpointError, match=f"holds quantised weights .awq.: '{K_PROJ}' is stored as float8_e4m3fn"):
        convert_model(edited(source, tmp_path / "cast", cast), tmp_path / "no")
