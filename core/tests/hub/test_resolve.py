"""Hub ids: resolved against a small server on this machine that speaks the hub's protocol."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from anyblock.checkpoint import resolve_model
from anyblock.checkpoint.hub import origin_of, split_revision
from anyblock.errors import InputError, UsageError
from safetensors import safe_open

RESOLVE = """
import json, sys
from anyblock.checkpoint.hub import origin_of, resolve_model
from anyblock.errors import AnyBlockError
answers = []
for text in sys.argv[1:]:
    model, _, revision = text.partition(" ")
    try:
        path = resolve_model(model, revision=revision or None)
        answers.append([str(path), origin_of(path)])
    except AnyBlockError as error:
        answers.append([type(error).__name__, str(error)])
print(json.dumps(answers))
"""
CONVERT = """
import json, sys
from anyblock import convert_model, load_model
from anyblock.checkpoint.hub import model_type_of
kind = model_type_of("owner/name")
out = convert_model("owner/name", sys.argv[1])
same = all(a.equal(b) for a, b in zip(load_model("owner/name@v1").parameters(), load_model(out).parameters(), strict=True))
print(json.dumps([kind, str(out), same]))
"""
Call = Callable[..., Any]
UNWANTED = ("pytorch_model.bin", "consolidated.safetensors", "original/params.json", "onnx/model.onnx", "model.gguf")


@pytest.fixture
def repository(hub: Any, server: Any, llama_dir: Path) -> Any:
    """The tiny Llama as `owner/name`, with files that nobody wants."""
    wanted = {name: f"wanted {name}".encode() for name in ("modeling_own.py", "README.md", "merges.txt")}
    added = hub.add("owner/name", server.tree_of(llama_dir) | wanted | dict.fromkeys(UNWANTED, b"unwanted"))
    added.branches["v1"] = added.branches["main"]
    hub.add("owner/gated", {}, gated=True)
    return added


def test_a_hub_id_is_downloaded_once(hub: Any, repository: Any, call: Call) -> None:
    commit = repository.branches["main"]
    (first,) = call(RESOLVE, "owner/name")
    path, origin = first
    assert origin == f"owner/name@{commit}"
    names = {str(file.relative_to(path)) for file in Path(path).rglob("*") if file.is_file()}
    assert names == repository.files().keys() - set(UNWANTED)
    assert sorted(hub.downloads) == sorted(names)
    assert call(RESOLVE, "owner/name v1", "owner/name@v1", f"owner/name@{commit}") == [first] * 3
    assert call(RESOLVE, "owner/name", "owner/name v1", origin, HF_HUB_OFFLINE="1") == [first] * 3
    assert sorted(hub.downloads) == sorted(names)


def test_a_hub_id_is_converted_and_its_commit_recorded(
    repository: Any, llama_dir: Path, tmp_path: Path, call: Call
) -> None:
    kind, out, same = call(CONVERT, tmp_path / "out")
    assert (kind, same) == ("llama", True)
    tensors: dict[str, bytes] = {}
    for file in Path(out).rglob("*.safetensors"):
        with safe_open(file, framework="np") as opened:
            tensors |= {name: opened.get_tensor(name).tobytes() for name in opened.keys()}  # noqa: SIM118
    with safe_open(llama_dir / "model.safetensors", framework="np") as opened:
        assert tensors == {name: opened.get_tensor(name).tobytes() for name in opened.keys()}  # noqa: SIM118
    metadata = json.loads((Path(out) / "model.safetensors.index.json").read_text())["metadata"]
    assert metadata["source"] == f"owner/name@{repository.branches['main']}"
    assert not any(file.is_symlink() for file in Path(out).rglob("*"))
    assert (Path(out) / "merges.txt").read_text() == "wanted merges.txt"


def test_what_the_hub_does_not_give(repository: Any, call: Call) -> None:
    wrong = {
        "owner/absent": ("InputError", "neither a directory here nor a repository on the hub"),
        "owner/gated": ("InputError", "is gated on the hub"),
        "owner/name v2": ("InputError", "has no revision 'v2' on the hub"),
        "owner/name@v2": ("InputError", "has no revision 'v2' on the hub"),
        "owner/name@main v1": ("UsageError", "names the revision 'main', and 'v1' was given too"),
    }
    for (asked, (kind, says)), (found, text) in zip(wrong.items(), call(RESOLVE, *wrong), strict=True):
        assert found == kind
        assert says in text
        assert asked.partition(" ")[0].partition("@")[0] in text


def test_a_private_repository_needs_a_token(hub: Any, server: Any, llama_dir: Path, anyblock: Any) -> None:
    hub.add("owner/secret", server.tree_of(llama_dir), private=True)
    refused = anyblock("convert", "owner/secret", "out")
    assert refused.returncode == 2
    assert "neither a directory here nor a repository on the hub that may be read" in refused.stderr
    assert "`hf auth login` or set HF_TOKEN" in refused.stderr
    assert anyblock("convert", "owner/secret", "out", HF_TOKEN=server.READER).returncode == 0


@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {}], ids=["offline", "unreachable"])
def test_without_the_hub(call: Call, environment: dict[str, str]) -> None:
    ((kind, text),) = call(RESOLVE, "owner/name", HF_ENDPOINT="http://127.0.0.1:9", **environment)
    assert kind == "InputError"
    assert "not in the cache of huggingface_hub, and the hub cannot be reached" in text
    assert "HF_HUB_OFFLINE" in text


class TestPaths:
    """Nothing of this asks the hub."""

    @pytest.fixture(autouse=True)
    def no_hub(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))

    def test_a_directory_is_itself(self, llama_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert resolve_model(str(llama_dir)) == llama_dir
        monkeypatch.chdir(llama_dir.parent)
        assert resolve_model("llama") == Path("llama")
        monkeypatch.setenv("HOME", str(llama_dir.parent))
        assert resolve_model("~/llama") == llama_dir
        assert origin_of(llama_dir) is None

    def test_a_directory_with_an_at_sign_is_a_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "own" / "model@v1").mkdir(parents=True)
        monkeypatch.chdir(tmp_path)
        assert resolve_model("own/model@v1") == Path("own/model@v1")
        assert split_revision("own/model@v1") == ("own/model@v1", None)
        assert split_revision("own/model@v2") == ("own/model", "v2")

    @pytest.mark.parametrize(
        "model",
        [
            "/absent/model",
            "./absent",
            "../absent",
            "~/absent",
            "a/b/c",
            "absent/",
            "",
            "a b",
            "C:\\x",
            "a\0b",
            "a@",
            "@a",
            "a/b@c d",
            "./a@b",
        ],
    )
    def test_what_looks_like_a_path(self, model: str) -> None:
        with pytest.raises(InputError, match="does not exist"):
            resolve_model(model)

    def test_a_file(self, llama_dir: Path) -> None:
        with pytest.raises(InputError, match="is not a directory"):
            resolve_model(str(llama_dir / "config.json"))

    def test_a_revision_of_a_directory(self, llama_dir: Path) -> None:
        with pytest.raises(UsageError, match="has no revision"):
            resolve_model(str(llama_dir), revision="main")
