"""Hub ids: resolved against a small server on this machine that speaks the hub's protocol."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from anyblock.checkpoint import resolve_model
from anyblock.checkpoint.hub import origin_of
from anyblock.errors import InputError, UsageError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
RESOLVE = """
import json, sys
from anyblock.checkpoint.hub import origin_of, resolve_model
from anyblock.errors import AnyBlockError
try:
    path = resolve_model(sys.argv[1], revision=sys.argv[2] or None)
    print(json.dumps([str(path), origin_of(path)]))
except AnyBlockError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""
CONVERT = """
import json, sys
from anyblock import convert_model
print(json.dumps(str(convert_model(sys.argv[1], sys.argv[2]))))
"""


class Hub:
    """A hub that has one repository, `owner/name`, with the files of a directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.downloads: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                hub.answer(self)

            def do_GET(self) -> None:
                hub.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        parts = unquote(urlsplit(request.path).path).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self.answer_api(request, parts[2:])
        elif parts[:2] == ["owner", "name"] and parts[2] == "resolve" and parts[3] in {"main", "v1", COMMIT}:
            self.answer_file(request, "/".join(parts[4:]))
        else:
            self.send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def answer_api(self, request: BaseHTTPRequestHandler, parts: list[str]) -> None:
        repository, rest = "/".join(parts[:2]), parts[2:]
        if repository == "owner/gated":
            self.send(request, 403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif repository != "owner/name":
            self.send(request, 401, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif rest and rest[-1] not in {"main", "v1", COMMIT}:
            self.send(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif rest[:1] == ["tree"]:
            self.send(request, 200, json.dumps(self.tree()).encode())
        else:
            info = {"_id": "x", "id": repository, "modelId": repository, "sha": COMMIT, "siblings": []}
            self.send(request, 200, json.dumps(info).encode())

    def tree(self) -> list[dict[str, Any]]:
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return [
            {
                "type": "file",
                "path": str(path.relative_to(self.folder)),
                "size": path.stat().st_size,
                "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
            }
            for path in files
        ]

    def answer_file(self, request: BaseHTTPRequestHandler, name: str) -> None:
        file = self.folder / name
        if not file.is_file():
            self.send(request, 404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        if request.command == "GET":
            self.downloads.append(name)
        content = file.read_bytes()
        headers = {
            "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
            "X-Linked-Size": str(len(content)),
        }
        self.send(request, 200, content, headers)

    def send(
        self, request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        request.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)


@pytest.fixture
def hub(sharded: Path) -> Iterator[Hub]:
    for name in (
        "pytorch_model.bin",
        "consolidated.safetensors",
        "original/params.json",
        "onnx/model.onnx",
        "model.gguf",
    ):
        (sharded / name).parent.mkdir(exist_ok=True)
        (sharded / name).write_text("unwanted")
    for name in ("tokenizer.json", "modeling_own.py", "README.md", "merges.txt", "chat_template.jinja"):
        (sharded / name).write_text(f"wanted {name}")
    hub = Hub(sharded)
    thread = threading.Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield hub
    hub.server.shutdown()
    hub.server.server_close()
    thread.join()


def run(code: str, cache: Path, endpoint: str, *arguments: str, **environment: str) -> Any:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith("HF_") and "PROXY" not in name.upper()
    }
    variables = {**kept, "HF_HOME": str(cache), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        cwd=cache.parent,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_hub_id_is_downloaded_once(hub: Hub, tmp_path: Path) -> None:
    path, origin = run(RESOLVE, tmp_path / "cache", hub.url, "owner/name", "")
    assert origin == f"owner/name@{COMMIT}"
    names = {str(file.relative_to(path)) for file in Path(path).rglob("*") if file.is_file()}
    wanted = [file for file in hub.folder.rglob("*") if file.is_file() and b"unwanted" not in file.read_bytes()]
    assert names == {str(file.relative_to(hub.folder)) for file in wanted}
    assert sorted(hub.downloads) == sorted(names)
    assert run(RESOLVE, tmp_path / "cache", hub.url, "owner/name", "v1") == [path, origin]
    assert run(RESOLVE, tmp_path / "cache", hub.url, "owner/name", "", HF_HUB_OFFLINE="1") == [path, origin]
    assert sorted(hub.downloads) == sorted(names)


def test_a_hub_id_is_converted_and_its_commit_recorded(hub: Hub, tmp_path: Path, tools: Any) -> None:
    out = run(CONVERT, tmp_path / "cache", hub.url, "owner/name", str(tmp_path / "out"))
    (hub.folder / "consolidated.safetensors").unlink()
    assert tools.all_bytes(Path(out)) == tools.all_bytes(hub.folder)
    metadata = json.loads((Path(out) / "model.safetensors.index.json").read_text())["metadata"]
    assert metadata["source"] == f"owner/name@{COMMIT}"
    assert not any(file.is_symlink() for file in Path(out).rglob("*"))
    assert (Path(out) / "tokenizer.json").read_text() == "wanted tokenizer.json"


@pytest.mark.parametrize(
    ("model", "revision", "message"),
    [
        ("owner/absent", "", "neither a directory here nor a repository on the hub"),
        ("owner/gated", "", "is gated on the hub"),
        ("owner/name", "v2", "has no revision 'v2' on the hub"),
    ],
)
def test_what_the_hub_does_not_give(hub: Hub, tmp_path: Path, model: str, revision: str, message: str) -> None:
    kind, text = run(RESOLVE, tmp_path / "cache", hub.url, model, revision)
    assert kind == "InputError"
    assert message in text
    assert model in text


@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {}], ids=["offline", "unreachable"])
def test_without_the_hub(tmp_path: Path, environment: dict[str, str]) -> None:
    kind, text = run(RESOLVE, tmp_path / "cache", "http://127.0.0.1:9", "owner/name", "", **environment)
    assert kind == "InputError"
    assert "not in the cache of huggingface_hub, and the hub cannot be reached" in text
    assert "HF_HUB_OFFLINE" in text


class TestPaths:
    """Nothing of this asks the hub."""

    @pytest.fixture(autouse=True)
    def no_hub(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))

    def test_a_directory_is_itself(self, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert resolve_model(str(llama)) == llama
        monkeypatch.chdir(llama.parent)
        assert resolve_model("llama") == Path("llama")
        monkeypatch.setenv("HOME", str(llama.parent))
        assert resolve_model("~/llama") == llama
        assert origin_of(llama) is None

    @pytest.mark.parametrize(
        "model", ["/absent/model", "./absent", "../absent", "~/absent", "a/b/c", "absent/", "", "a b", "C:\\x", "a\0b"]
    )
    def test_what_looks_like_a_path(self, model: str) -> None:
        with pytest.raises(InputError, match="does not exist"):
            resolve_model(model)

    def test_a_file(self, llama: Path) -> None:
        with pytest.raises(InputError, match="is not a directory"):
            resolve_model(str(llama / "config.json"))

    def test_a_revision_of_a_directory(self, llama: Path) -> None:
        with pytest.raises(UsageError, match="has no revision"):
            resolve_model(str(llama), revision="main")
