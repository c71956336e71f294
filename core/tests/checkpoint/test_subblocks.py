"""Reading and writing subblock checkpoints."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock.checkpoint import SubblockCheckpoint, SubblockWriter, is_subblock_checkpoint
from anyblock.checkpoint import fingerprint as fingerprints
from anyblock.checkpoint.safetensors_writer import Stored
from anyblock.contract.blocks import BlockConfig
from anyblock.errors import CheckpointError, ConfigError, InputError
from safetensors.torch import load_file

INDEX = "model.safetensors.index.json"
GROUPS = "subblocks_safetensors"
Edit = Callable[[Path, Callable[[Any], Any]], None]


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as raised:
        SubblockCheckpoint.open(folder)
    return str(raised.value)


class TestReader:
    def test_tensors_are_those_of_the_source(self, converted: Path, llama: Path) -> None:
        source = load_file(llama / "model.safetensors")
        checkpoint = SubblockCheckpoint.open(converted)
        found: dict[str, torch.Tensor] = {}
        for group, names in checkpoint.groups.items():
            tensors, meta = checkpoint.load(group), checkpoint.meta(group)
            assert set(tensors) == set(meta) == set(names)
            for name, tensor in tensors.items():
                entry = checkpoint.entry(name)
                assert checkpoint.group(name) == group
                assert meta[name].is_meta
                assert (meta[name].shape, meta[name].dtype) == (tensor.shape, tensor.dtype)
                assert (entry.shape, entry.dtype) == (tuple(tensor.shape), "F32")
            found |= tensors
        assert found.keys() == source.keys()
        assert all(torch.equal(found[name].view(torch.int32), source[name].view(torch.int32)) for name in source)
        assert "block_configs" not in checkpoint.config
        assert checkpoint.config["model_type"] == "llama"
        assert len(checkpoint.block_configs) == 2

    def test_loading_maps_the_file(self, tmp_path: Path, tools: Any) -> None:
        from anyblock import convert_model

        def rss() -> int:
            status = Path("/proc/self/status").read_text()
            return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024

        size = 2048 * 4096 * 2
        sizes = {"hidden": 2048, "ffn": 4096, "vocab": 64}
        spec, config = tools.llama_spec(1, **sizes, dtype="BF16"), tools.llama_config(1, **sizes)
        out = convert_model(tools.write_checkpoint(tmp_path / "in", spec, config), tmp_path / "out")
        checkpoint = SubblockCheckpoint.open(out)
        checkpoint.load("embeddings")
        before = rss()
        tensors = checkpoint.load("block_0_ffn")
        assert rss() - before < size
        name = "model.layers.0.mlp.up_proj.weight"
        assert str(checkpoint.file("block_0_ffn")) in Path("/proc/self/maps").read_text()
        tensors[name].zero_()
        assert not torch.equal(checkpoint.load("block_0_ffn")[name], tensors[name])

    def test_types_are_converted_on_request(self, converted: Path) -> None:
        checkpoint = SubblockCheckpoint.open(converted)
        plain, half = checkpoint.load("lm_head"), checkpoint.load("lm_head", dtype=torch.bfloat16)
        for name, tensor in half.items():
            assert torch.equal(tensor.view(torch.int16), plain[name].bfloat16().view(torch.int16))

    def test_integers_and_float8_keep_their_type(self, tmp_path: Path) -> None:
        tensors = {
            "a": torch.ones(2, dtype=torch.int32),
            "b": torch.ones(2).to(torch.float8_e4m3fn),
            "c": torch.ones(2),
        }
        folder = tmp_path / "out"
        folder.mkdir()
        writer = SubblockWriter(folder, config={"model_type": "llama"}, block_configs=[])
        writer.write("embeddings", tensors)
        writer.finish()
        loaded = SubblockCheckpoint.open(folder).load("embeddings", dtype=torch.float16)
        assert [loaded[name].dtype for name in "abc"] == [torch.int32, torch.float8_e4m3fn, torch.float16]

    def test_unknown_names(self, converted: Path) -> None:
        checkpoint = SubblockCheckpoint.open(converted)
        with pytest.raises(CheckpointError, match="did you mean 'block_0_ffn'"):
            checkpoint.load("block_0_fn")
        with pytest.raises(CheckpointError, match=r"did you mean 'model\.norm\.weight'"):
            checkpoint.entry("model.norm.wight")

    def test_recognition(self, converted: Path, llama: Path, tmp_path: Path) -> None:
        assert is_subblock_checkpoint(converted)
        assert not is_subblock_checkpoint(llama)
        assert not is_subblock_checkpoint(tmp_path / "absent")
        assert "has no block_configs" in refused(llama)
        assert "anyblock convert" in refused(llama)
        assert "does not exist" in refused(tmp_path / "absent")

    def test_missing_files(self, converted: Path) -> None:
        (converted / GROUPS / "block_1_ffn.safetensors").unlink()
        assert "block_1_ffn.safetensors is missing" in refused(converted)
        (converted / INDEX).unlink()
        assert f"has no {INDEX}" in refused(converted)

    def test_a_no_op_with_tensors_and_a_half_without(self, converted: Path, edit_json: Edit) -> None:
        edit_json(converted / "config.json", lambda config: config["block_configs"][0].update(ffn={"no_op": True}))
        assert "holds tensors of block_0_ffn, whose block config says no_op" in refused(converted)

        def forget(index: Any) -> None:
            index["weight_map"] = {n: f for n, f in index["weight_map"].items() if "block_0_ffn" not in f}

        edit_json(converted / INDEX, forget)
        assert "block_0_ffn.safetensors is not in" in refused(converted)
        (converted / GROUPS / "block_0_ffn.safetensors").unlink()
        assert SubblockCheckpoint.open(converted).block_configs[0].ffn.no_op
        block = BlockConfig.from_dict(json.loads((converted / "config.json").read_text())["block_configs"][1])
        edit_json(converted / "config.json", lambda config: config["block_configs"].insert(0, block.to_dict()))
        assert "holds no tensors of block_0_ffn" in refused(converted)

    def test_more_groups_than_layers(self, converted: Path, edit_json: Edit) -> None:
        edit_json(converted / "config.json", lambda config: config["block_configs"].pop())
        assert "holds tensors of block_1_attention" in refused(converted)

    @pytest.mark.parametrize(
        "target",
        [
            "model.safetensors",
            "../x.safetensors",
            f"{GROUPS}/../x.safetensors",
            f"{GROUPS}/.x.safetensors",
            f"{GROUPS}/a/b.safetensors",
        ],
    )
    def test_an_index_that_leads_elsewhere(self, converted: Path, edit_json: Edit, target: str) -> None:
        edit_json(converted / INDEX, lambda index: index["weight_map"].update({"model.norm.weight": target}))
        text = refused(converted)
        assert "'model.norm.weight' is said to be in" in text
        assert INDEX in text

    def test_a_file_that_leads_elsewhere(self, converted: Path, tmp_path: Path) -> None:
        file = converted / GROUPS / "lm_head.safetensors"
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")
        assert "leads outside of its folder" in refused(converted)

    def test_damage_is_found_when_a_group_is_used(self, converted: Path) -> None:
        os.truncate(converted / GROUPS / "block_0_ffn.safetensors", 2000)
        checkpoint = SubblockCheckpoint.open(converted)
        assert checkpoint.load("block_1_ffn")
        for use in (checkpoint.load, checkpoint.meta, checkpoint.header):
            with pytest.raises(CheckpointError, match=r"block_0_ffn\.safetensors.*ends at byte"):
                use("block_0_ffn")

    def test_files_that_do_not_agree_with_the_index(self, converted: Path) -> None:
        folder = converted / GROUPS
        shutil.copy(folder / "block_0_ffn.safetensors", folder / "block_1_ffn.safetensors")
        with pytest.raises(CheckpointError, match=r"block_1_ffn\.safetensors lacks 4 tensors"):
            SubblockCheckpoint.open(converted).load("block_1_ffn")

    def test_block_configs_that_are_none(self, converted: Path, edit_json: Edit) -> None:
        edit_json(converted / "config.json", lambda config: config.update(block_configs={"a": 1}))
        with pytest.raises(ConfigError, match=r"config\.json: block_configs is dict"):
            SubblockCheckpoint.open(converted)


class TestFingerprint:
    @pytest.fixture(autouse=True)
    def forget(self) -> None:
        fingerprints._MEMORY.clear()

    def test_depends_on_content_only(self, converted: Path, tmp_path: Path, edit_json: Edit) -> None:
        first = SubblockCheckpoint.open(converted).fingerprint()
        assert len(first) == 64
        twin = shutil.copytree(converted, tmp_path / "twin")
        edit_json(twin / "config.json", lambda config: config.update(model_type=config.pop("model_type")))
        assert SubblockCheckpoint.open(twin).fingerprint() == first

    @pytest.mark.parametrize("change", ["config", "blocks", "weights"])
    def test_every_change_shows(self, converted: Path, edit_json: Edit, change: str) -> None:
        first = SubblockCheckpoint.open(converted).fingerprint()
        if change == "config":
            edit_json(converted / "config.json", lambda config: config.update(rms_norm_eps=2e-05))
        elif change == "blocks":
            edit_json(converted / "config.json", lambda c: c["block_configs"][0]["ffn"].update(intermediate_size=20))
        else:
            file = converted / GROUPS / "lm_head.safetensors"
            status = file.stat()
            content = bytearray(file.read_bytes())
            content[-1] ^= 1
            file.write_bytes(content)
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert SubblockCheckpoint.open(converted).fingerprint() != first

    def test_files_are_read_once(self, converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        cache = tmp_path / "cache.json"
        checkpoint = SubblockCheckpoint.open(converted)
        first = checkpoint.fingerprint(cache)

        def never(*_: object) -> None:
            raise AssertionError("a file is read again")

        monkeypatch.setattr(fingerprints.hashlib, "file_digest", never)
        assert checkpoint.fingerprint() == first
        fingerprints._MEMORY.clear()
        assert checkpoint.fingerprint(cache) == first
        fingerprints._MEMORY.clear()
        with pytest.raises(AssertionError):
            checkpoint.fingerprint()

    @pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"a": 1, "b": "short"}'])
    def test_a_damaged_cache_is_replaced(self, converted: Path, tmp_path: Path, content: bytes) -> None:
        cache = tmp_path / "cache.json"
        checkpoint = SubblockCheckpoint.open(converted)
        first = checkpoint.fingerprint()
        fingerprints._MEMORY.clear()
        cache.write_bytes(content)
        assert checkpoint.fingerprint(cache) == first
        assert len(json.loads(cache.read_text())) == len(checkpoint.groups)


class TestWriter:
    @pytest.fixture
    def parent(self, converted: Path) -> SubblockCheckpoint:
        return SubblockCheckpoint.open(converted)

    def writer(self, folder: Path, parent: SubblockCheckpoint, blocks: Any = None, advance: Any = id) -> SubblockWriter:
        folder.mkdir()
        config = {**parent.config, "block_configs": "replaced"}
        blocks = blocks or parent.block_configs
        return SubblockWriter(folder, config=config, block_configs=blocks, metadata={"by": "test"}, advance=advance)

    def test_a_child(self, parent: SubblockCheckpoint, tmp_path: Path) -> None:
        blocks = [parent.block_configs[0].with_ffn(intermediate_size=10), parent.block_configs[1].with_ffn(no_op=True)]
        told: list[int] = []
        writer = self.writer(tmp_path / "child", parent, blocks, told.append)
        ffn = {
            n: t[:10] if "gate" in n or "up" in n else t[..., :10] if "down" in n else t
            for n, t in parent.load("block_0_ffn").items()
        }
        writer.write("block_0_ffn", ffn)
        for group in ("embeddings", "lm_head", "block_0_attention", "block_1_attention"):
            writer.copy_group(parent, group)
        writer.finish(source="owner/name@0123")
        child = SubblockCheckpoint.open(tmp_path / "child")
        assert child.block_configs == blocks
        assert child.config == parent.config
        assert child.groups.keys() == parent.groups.keys() - {"block_1_ffn"}
        for name, tensor in child.load("block_0_ffn").items():
            assert torch.equal(tensor.view(torch.int32), ffn[name].contiguous().view(torch.int32))
        for group in ("embeddings", "lm_head", "block_0_attention", "block_1_attention"):
            copied, original = child.load(group), parent.load(group)
            assert all(torch.equal(copied[n].view(torch.int32), original[n].view(torch.int32)) for n in original)
            assert child.header(group).metadata == {"format": "pt", "by": "test"}
        total = sum(child.entry(name).nbytes for names in child.groups.values() for name in names)
        metadata = json.loads((child.path / INDEX).read_text())["metadata"]
        assert (metadata["total_size"], metadata["source"]) == (total, "owner/name@0123")
        assert sum(told) == total

    def test_the_index_does_not_depend_on_the_order_of_writing(self, tmp_path: Path) -> None:
        groups = [f"block_{index}_{half}" for index in range(12) for half in ("attention", "ffn")]
        groups += ["embeddings", "lm_head"]
        block = {"attention": {"num_key_value_heads": 1}, "ffn": {"intermediate_size": 1}}
        written = []
        for number, order in enumerate((groups, groups[::-1])):
            folder = tmp_path / str(number)
            folder.mkdir()
            blocks = [BlockConfig.from_dict(block)] * 12
            writer = SubblockWriter(folder, config={"model_type": "llama"}, block_configs=blocks)
            for group in order:
                writer.write(group, {f"{group}.{name}": torch.zeros(1) for name in "ba"})
            writer.finish()
            written.append((folder / INDEX).read_bytes())
            assert list(SubblockCheckpoint.open(folder).groups) == groups
        assert written[0] == written[1]

    def test_many_groups_are_copied_at_once(self, parent: SubblockCheckpoint, tmp_path: Path) -> None:
        headers = {group: parent.header(group) for group in parent.groups}
        parts = {g: {n: Stored(parent.file(g), e) for n, e in header.tensors.items()} for g, header in headers.items()}
        stamps = {parent.file(group): header.stamp for group, header in headers.items()}
        writer = self.writer(tmp_path / "child", parent)
        writer.copy_parts(parts, stamps)
        writer.finish()
        child = SubblockCheckpoint.open(tmp_path / "child")
        for group in parent.groups:
            for name, tensor in child.load(group).items():
                assert torch.equal(tensor.view(torch.int32), parent.load(group)[name].view(torch.int32))
        parent.file("block_1_ffn").unlink()
        with pytest.raises(CheckpointError, match=r"block_1_ffn\.safetensors does not exist"):
            self.writer(tmp_path / "other", parent).copy_parts(parts, stamps)

    def test_groups_and_tensors_are_written_once(self, parent: SubblockCheckpoint, tmp_path: Path) -> None:
        writer = self.writer(tmp_path / "child", parent)
        writer.write("embeddings", {"a": torch.zeros(1)})
        for group, name, message in (
            ("embeddings", "b", "is written twice"),
            ("lm_head", "a", "tensor 'a' is in subblocks_safetensors/embeddings"),
            ("../x", "c", "cannot be the name of a group"),
        ):
            with pytest.raises(CheckpointError, match=message):
                writer.write(group, {name: torch.zeros(1)})
        with pytest.raises(CheckpointError, match="has no tensors"):
            writer.write("lm_head", {})

    def test_finishing_checks_the_groups(self, parent: SubblockCheckpoint, tmp_path: Path) -> None:
        writer = self.writer(tmp_path / "child", parent)
        writer.copy_group(parent, "embeddings")
        with pytest.raises(CheckpointError, match="holds no tensors of block_0_attention"):
            writer.finish()
        assert not (tmp_path / "child" / "config.json").exists()

    def test_a_source_that_changed(self, parent: SubblockCheckpoint, tmp_path: Path) -> None:
        parent.header("lm_head")
        file = parent.file("lm_head")
        file.write_bytes(file.read_bytes()[::-1])
        os.utime(file, ns=(0, 0))
        with pytest.raises(CheckpointError, match="was changed"):
            self.writer(tmp_path / "child", parent).copy_group(parent, "lm_head")
