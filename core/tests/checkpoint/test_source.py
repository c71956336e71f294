"""Finding the weights of a directory: what is read, and what is refused by name."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from anyblock import convert_model, load_model
from anyblock.calibration.tokenizer import load_tokenizer
from anyblock.checkpoint import SourceCheckpoint, read_config, resolve_model
from anyblock.checkpoint.files import inside
from anyblock.errors import CheckpointError, InputError

INDEX = "model.safetensors.index.json"
FIRST = "model-00001-of-00003.safetensors"
Edit = Callable[[Path, Callable[[Any], Any]], None]


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as raised:
        SourceCheckpoint.open(folder)
    return str(raised.value)


def test_one_file_and_shards_hold_the_same_tensors(llama: Path, sharded: Path, tools: Any) -> None:
    one, several = SourceCheckpoint.open(llama), SourceCheckpoint.open(sharded)
    assert one.tensors.keys() == several.tensors.keys() == tools.llama_spec().keys()
    assert one.total_size == several.total_size
    for source in (one, several):
        for name, (file, entry) in source.tensors.items():
            assert file.read_bytes()[entry.start : entry.end] == tools.all_bytes(source.path)[name][2]


def test_a_subblock_checkpoint_is_a_source(converted: Path, llama: Path) -> None:
    assert SourceCheckpoint.open(converted).tensors.keys() == SourceCheckpoint.open(llama).tensors.keys()


def test_an_index_may_name_the_single_file(llama: Path) -> None:
    names = SourceCheckpoint.open(llama).tensors
    (llama / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(names, "model.safetensors")}))
    assert SourceCheckpoint.open(llama).tensors.keys() == names.keys()


def test_missing_folder_and_file_instead(tmp_path: Path, llama: Path) -> None:
    assert "does not exist" in refused(tmp_path / "absent")
    assert "is not a directory" in refused(llama / "config.json")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pytorch_model.bin", "pickles and are not loaded"),
        ("consolidated.00.pth", "pickles and are not loaded"),
        ("model.pt", "pickles and are not loaded"),
        ("model.gguf", "has its weights in model.gguf"),
        ("tf_model.h5", "has its weights in tf_model.h5"),
        ("other.safetensors", "has other.safetensors and no model.safetensors.index.json"),
        ("README.md", "has no weights"),
    ],
)
def test_other_formats_are_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    text = refused(tmp_path)
    assert message in text
    assert "model.safetensors" in text
    if "pickles" in message:
        assert "save_pretrained" in text
        assert str(tmp_path) in text


def test_a_missing_shard(sharded: Path) -> None:
    (sharded / FIRST).unlink()
    assert f"{FIRST} is missing; {INDEX} names it for" in refused(sharded)


def test_a_shard_without_a_listed_tensor(sharded: Path, edit_json: Edit) -> None:
    edit_json(sharded / INDEX, lambda index: index["weight_map"].update({"model.extra.weight": FIRST}))
    assert f"{FIRST} lacks 1 tensor: 'model.extra.weight'" in refused(sharded)


def test_a_tensor_that_is_not_listed(sharded: Path, edit_json: Edit) -> None:
    edit_json(sharded / INDEX, lambda index: index["weight_map"].pop("lm_head.weight"))
    assert f"{FIRST} holds 1 tensor: 'lm_head.weight'" in refused(sharded)


def test_a_tensor_in_two_shards(sharded: Path, tools: Any) -> None:
    second = sharded / "model-00002-of-00003.safetensors"
    second.write_bytes(tools.tensor_file({"lm_head.weight": ("F32", (2,))}))
    text = refused(sharded)
    assert "'lm_head.weight' is in" in text
    assert FIRST in text
    assert second.name in text


def test_a_tensor_listed_twice(sharded: Path) -> None:
    text = (sharded / INDEX).read_text()
    (sharded / INDEX).write_text(text.replace('"weight_map": {', f'"weight_map": {{"lm_head.weight": "{FIRST}", '))
    assert "the key 'lm_head.weight' stands there twice" in refused(sharded)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("/etc/model.safetensors", "is not a file of this folder"),
        ("../sharded/x.safetensors", "is not a file of this folder"),
        ("a/../../x.safetensors", "is not a file of this folder"),
        ("a\\..\\x.safetensors", "is not a file of this folder"),
        ("\0.safetensors", "is not a file of this folder"),
        ("x" * 5000 + ".safetensors", "is not a file of this folder"),
        ("absent.safetensors", "absent.safetensors is missing"),
        ("pytorch_model.bin", "pickles"),
        (7, "is said to be in 7"),
        (None, "is said to be in None"),
    ],
    ids=range(10),
)
def test_an_index_that_leads_elsewhere(sharded: Path, edit_json: Edit, target: Any, message: str) -> None:
    edit_json(sharded / INDEX, lambda index: index["weight_map"].update({"lm_head.weight": target}))
    text = refused(sharded)
    assert message in text
    assert INDEX in text
    assert len(text) < 1000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON"),
        ("[]", "holds a JSON list"),
        ("{}", "has no weight_map"),
        ('{"weight_map": []}', "has no weight_map"),
        ('{"weight_map": {}}', "has no weight_map"),
        ("[" * 100_000, "nested too deeply"),
        ("null", "holds a JSON null"),
    ],
)
def test_an_index_that_is_none(sharded: Path, content: str, message: str) -> None:
    (sharded / INDEX).write_text(content)
    text = refused(sharded)
    assert message in text
    assert str(sharded / INDEX) in text


def test_two_sets_of_weights(sharded: Path, llama: Path) -> None:
    shutil.copy(llama / "model.safetensors", sharded)
    assert "holds two models" in refused(sharded)


def test_a_pipe_is_refused_and_not_waited_for(sharded: Path) -> None:
    (sharded / FIRST).unlink()
    os.mkfifo(sharded / FIRST)
    assert "is not a regular file" in refused(sharded)


def test_links_may_stay_inside_only(sharded: Path, tmp_path: Path) -> None:
    inside = sharded / "files" / "first"
    inside.parent.mkdir()
    (sharded / FIRST).rename(inside)
    (sharded / FIRST).symlink_to("files/first")
    assert SourceCheckpoint.open(sharded).tensors
    inside.rename(tmp_path / "outside")
    (sharded / FIRST).unlink()
    (sharded / FIRST).symlink_to(tmp_path / "outside")
    text = refused(sharded)
    assert "leads outside of its folder" in text
    assert str(tmp_path / "outside") in text


def test_a_link_in_a_circle(sharded: Path) -> None:
    (sharded / FIRST).unlink()
    (sharded / FIRST).symlink_to(FIRST)
    with pytest.raises(CheckpointError):
        SourceCheckpoint.open(sharded)


def hub_cache(source: Path, cache: Path, *, shared_store: bool) -> Path:
    """Lay a directory out as huggingface_hub does, optionally with its cache-wide blob store."""
    repository = cache / "models--owner--name"
    snapshot = repository / "snapshots" / ("0123456789" * 4)
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, file in enumerate(sorted(source.iterdir())):
        blob = repository / "blobs" / f"{number:064x}"
        if shared_store:
            stored = cache / "blobs" / "00" / f"{number:064x}"
            stored.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, stored)
            blob.symlink_to(os.path.relpath(stored, blob.parent))
        else:
            shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(f"../../blobs/{blob.name}")
    return snapshot


@pytest.mark.parametrize("shared_store", [False, True])
def test_the_cache_of_the_hub(sharded: Path, tmp_path: Path, shared_store: bool) -> None:
    snapshot = hub_cache(sharded, tmp_path / "hub", shared_store=shared_store)
    assert SourceCheckpoint.open(snapshot).tensors.keys() == SourceCheckpoint.open(sharded).tensors.keys()


def test_a_cache_that_leads_to_another_repository(sharded: Path, tmp_path: Path) -> None:
    snapshot = hub_cache(sharded, tmp_path / "hub", shared_store=False)
    other = tmp_path / "hub" / "models--other--name" / "blobs" / "x"
    other.parent.mkdir(parents=True)
    shutil.copy(sharded / FIRST, other)
    (snapshot / FIRST).unlink()
    (snapshot / FIRST).symlink_to(other)
    assert "leads outside of its folder" in refused(snapshot)


@pytest.mark.parametrize("shared_store", [False, True])
def test_links_of_a_local_folder_into_a_cache(sharded: Path, tmp_path: Path, shared_store: bool) -> None:
    """`huggingface-cli download --local-dir` made such folders, and people make them on clusters."""
    snapshot = hub_cache(sharded, tmp_path / "hub", shared_store=shared_store)
    local = tmp_path / "local"
    local.mkdir()
    for number, file in enumerate(sorted(snapshot.iterdir())):
        (local / file.name).symlink_to(file.resolve() if number % 2 else file)
    assert SourceCheckpoint.open(local).tensors.keys() == SourceCheckpoint.open(sharded).tensors.keys()
    out = convert_model(local, tmp_path / "out")
    assert not any(file.is_symlink() for file in out.rglob("*"))
    other = tmp_path / "other" / "blobs"  # the name alone makes no cache
    other.mkdir(parents=True)
    shutil.copy(sharded / FIRST, other / "x")
    (local / FIRST).unlink()
    (local / FIRST).symlink_to(other / "x")
    assert "leads outside of its folder" in refused(local)


def test_links_into_another_models_folder(sharded: Path, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.mkdir()
    for file in sharded.iterdir():
        (local / file.name).symlink_to(file)
    assert SourceCheckpoint.open(local).tensors.keys() == SourceCheckpoint.open(sharded).tensors.keys()
    folder, name = sharded / "subblocks_safetensors", "subblocks_safetensors/" + FIRST
    folder.mkdir()
    (sharded / FIRST).rename(folder / FIRST)
    (local / "subblocks_safetensors").mkdir()
    (local / name).symlink_to(sharded / name)
    assert inside(local, name) == local / name
    (folder / FIRST).rename(sharded / FIRST)
    (local / FIRST).unlink()
    (local / FIRST).symlink_to(sharded / "config.json")
    assert "leads outside of its folder" in refused(local)
    (local / FIRST).unlink()
    (tmp_path / FIRST).write_bytes((sharded / FIRST).read_bytes())  # no model's folder
    (local / FIRST).symlink_to(tmp_path / FIRST)
    assert "leads outside of its folder" in refused(local)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 1044992\n"


@pytest.mark.parametrize("name", [FIRST, INDEX, "config.json", "tokenizer.json", "chat_template.jinja"])
def test_a_pointer_of_git_lfs(sharded: Path, tmp_path: Path, name: str) -> None:
    (sharded / name).write_bytes(POINTER)
    with pytest.raises(InputError, match=f"{name} is a git-lfs pointer") as raised:
        convert_model(sharded, tmp_path / "out")
    assert "git lfs pull" in raised.value.hint
    assert not (tmp_path / "out").exists()
    if name == "tokenizer.json":
        with pytest.raises(InputError, match=f"{name} is a git-lfs pointer"):
            load_tokenizer(sharded)


def adapter(folder: Path, base: str | None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": base}))
    (folder / "adapter_model.safetensors").write_bytes(b"any")
    return folder


@pytest.mark.parametrize(("base", "named"), [("owner/base", "owner/base"), (None, "a model that it does not name")])
def test_a_folder_with_nothing_but_an_adapter(tmp_path: Path, base: str | None, named: str) -> None:
    folder = adapter(tmp_path / "lora", base)
    for use in (
        lambda: convert_model(folder, tmp_path / "out"),
        lambda: load_model(folder),
        lambda: load_model(str(folder)),
        lambda: resolve_model(str(folder)),
        lambda: read_config(folder),
    ):
        with pytest.raises(CheckpointError, match=rf"lora holds an adapter \(LORA\) of {named} and no model") as raised:
            use()
        assert "merge_and_unload" in raised.value.hint


def test_an_adapter_next_to_a_model(llama: Path, converted: Path, tmp_path: Path) -> None:
    for folder in (adapter(llama, str(llama)), adapter(converted, "owner/base")):
        for use in (
            lambda folder=folder: convert_model(folder, tmp_path / "out"),
            lambda folder=folder: load_model(folder),
            lambda folder=folder: load_model(folder, attn_implementation="sdpa"),
            lambda folder=folder: resolve_model(str(folder)),
        ):
            with pytest.raises(CheckpointError, match=r"holds an adapter .* next to a model") as raised:
                use()
            assert "merge it first" in raised.value.hint
    assert not (tmp_path / "out").exists()


def test_the_advice_for_an_adapter_merges_it(llama_dir: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    import torch

    llama = Path(shutil.copytree(llama_dir, tmp_path / "llama"))
    model = peft.get_peft_model(
        load_model(llama), peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(generator=torch.Generator().manual_seed(0))
    model.save_pretrained(tmp_path / "lora")
    expected = model(torch.arange(8)[None]).logits
    for file in (tmp_path / "lora").glob("adapter_*"):
        shutil.copy(file, llama)
    with pytest.raises(CheckpointError) as raised:
        load_model(llama)
    (code,) = re.findall(r'python -c "(.*)"', raised.value.hint)
    kept = llama.with_name(f"{llama.name}-adapter")
    kept.mkdir()
    for file in llama.glob("adapter_*"):
        file.rename(kept / file.name)
    exec(code)
    merged = load_model(llama.with_name(f"{llama.name}-merged"))
    torch.testing.assert_close(merged(torch.arange(8)[None]).logits, expected, rtol=1e-3, atol=1e-3)


def test_a_file_without_tensors(tmp_path: Path, tools: Any) -> None:
    (tmp_path / "model.safetensors").write_bytes(tools.raw_file({}))
    assert "holds no tensors" in refused(tmp_path)
