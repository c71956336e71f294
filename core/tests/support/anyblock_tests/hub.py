"""A small hub on this machine: as much of the Hugging Face hub's protocol as is spoken for models, and to read data sets.

Repositories have branches and commits; a commit is a whole snapshot, made in one request or not at all. Files of 1 KiB and
more go through the LFS protocol (batch, then one PUT each) as they do on the real hub, smaller ones inside the commit.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_writer"
READER = "hf_reader"
LFS_BYTES = 1024


def oid_of(content: object) -> str:
    return hashlib.sha1(repr(content).encode()).hexdigest()


def tree_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@dataclass
class Repository:
    private: bool = False
    gated: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes], message: str, branch: str = "main") -> str:
        oid = oid_of((files, message, self.branches.get(branch)))
        self.commits[oid] = files
        self.branches[branch] = oid
        self.messages.append(message)
        return oid

    def resolve(self, revision: str) -> str | None:
        return self.branches.get(revision) or (revision if revision in self.commits else None)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches[revision]]


class Hub:
    """The hub's state and its answers.

    Attributes:
        repositories: by id.
        downloads: the files that were fetched.
        uploads: the hashes of LFS objects that arrived.
        fail_uploads: refuse every LFS object after so many; None takes all.
        on_upload: called with every LFS object that arrives.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.downloads: list[str] = []
        self.uploads: list[str] = []
        self.objects: dict[str, bytes] = {}
        self.fail_uploads: int | None = None
        self.on_upload: Callable[[], object] = lambda: None
        self.lock = threading.Lock()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                Request(hub, self).answer()

            do_HEAD = do_GET = do_POST = do_PUT = handle_any  # noqa: N815 - the standard library's names

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def add(self, name: str, files: dict[str, bytes], *, private: bool = False, gated: bool = False) -> Repository:
        """Add a repository with one commit."""
        self.repositories[name] = Repository(private, gated)
        self.repositories[name].commit(files, "first")
        return self.repositories[name]

    @contextmanager
    def running(self) -> Iterator[Hub]:
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()
            thread.join()


def refused_metadata(card: str) -> list[str]:
    """Say what the hub refuses of a card: https://huggingface.co/docs/hub/model-cards lists what may stand there."""
    data = yaml.safe_load(card.split("---")[1]) if card.startswith("---") else {}
    listed = {name: data.get(name) or [] for name in ("tags", "metrics", "language", "base_model")}
    listed = {name: [found] if isinstance(found, str) else found for name, found in listed.items()}
    errors = [
        f'"{name}" must be a string or an array of strings'
        for name, found in listed.items()
        if not all(isinstance(text, str) for text in found)
    ]
    errors += [
        f'"base_model" has {name!r}' for name in listed["base_model"] if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name)
    ]
    if not re.fullmatch(r"[a-z0-9.-]+", str(data.get("license", "mit"))):
        errors.append(f'"license" is {data["license"]!r}, and must be one of the list')
    if data.get("license_name") and data.get("license") != "other":
        errors.append('"license_name" is for the license "other"')
    if "library_name" in data and not isinstance(data["library_name"], str):
        errors.append('"library_name" must be a string')
    return errors


class Request:
    """One request; every answer goes out through `send`."""

    def __init__(self, hub: Hub, handler: BaseHTTPRequestHandler) -> None:
        self.hub = hub
        self.handler = handler
        self.token = (handler.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.parts = [unquote(part) for part in urlsplit(handler.path).path.strip("/").split("/")]
        length = int(handler.headers.get("Content-Length") or 0)
        self.body = handler.rfile.read(length)
        self.whole = len(self.body) == length

    def answer(self) -> None:
        parts = self.parts
        if not self.whole:  # who asked has died in the middle
            self.handler.close_connection = True
        elif parts == ["api", "validate-yaml"]:
            errors = refused_metadata(json.loads(self.body)["content"])
            self.send(400 if errors else 200, {"errors": [{"message": text} for text in errors], "warnings": []})
        elif parts == ["api", "repos", "create"]:
            self.create()
        elif parts[0] == "lfs":
            self.receive(parts[1])
        elif parts[:2] == ["api", "models"]:
            self.in_repository("/".join(parts[2:4]), parts[4:] or ["revision", "main"])
        elif parts[:2] == ["api", "datasets"]:
            self.in_repository("datasets/" + "/".join(parts[2:4]), parts[4:] or ["revision", "main"])
        elif parts[0] == "datasets" and parts[3:4] == ["resolve"]:
            self.in_repository("/".join(parts[:3]), parts[3:])
        elif len(parts) > 3 and parts[2] == "resolve":
            self.in_repository("/".join(parts[:2]), parts[2:])
        elif parts[2:] == ["info", "lfs", "objects", "batch"]:
            self.in_repository("/".join(parts[:2]).removesuffix(".git"), ["batch"])
        else:
            self.send(404, {"error": self.handler.path})

    def in_repository(self, name: str, rest: list[str]) -> None:
        repository = self.hub.repositories.get(name)
        known = self.token in (TOKEN, READER)
        if repository is None or (repository.private and not known):
            # The hub does not tell whether a private repository exists.
            self.send(404 if known else 401, {}, {"X-Error-Code": "RepoNotFound"})
        elif repository.gated and not known:
            self.send(403, {}, {"X-Error-Code": "GatedRepo"})
        elif rest[0] in ("preupload", "batch", "commit", "branch") and self.token != TOKEN:
            self.send(403 if known else 401, {"error": "You don't have the rights for this"})
        else:
            getattr(self, f"do_{rest[0]}")(name, repository, rest[1:])

    def create(self) -> None:
        wanted = json.loads(self.body)
        name = f"{wanted.get('organization') or 'writer'}/{wanted['name']}"
        with self.hub.lock:
            if self.token != TOKEN:
                self.send(403 if self.token == READER else 401, {"error": "You don't have the rights for this"})
            elif name in self.hub.repositories:
                self.send(409, {"error": "exists", "url": f"{self.hub.url}/{name}"})
            else:
                private = bool(wanted.get("private") or wanted.get("visibility") == "private")
                self.hub.add(name, {".gitattributes": b""}, private=private)
                self.send(200, {"url": f"{self.hub.url}/{name}", "id": name})

    def receive(self, oid: str) -> None:
        with self.hub.lock:
            if self.hub.fail_uploads is not None and len(self.hub.uploads) >= self.hub.fail_uploads:
                self.send(400, {"error": "the connection broke"})
                return
            assert hashlib.sha256(self.body).hexdigest() == oid
            self.hub.objects[oid] = self.body
            self.hub.uploads.append(oid)
            self.hub.on_upload()
            self.send(200, {})

    def commit_of(self, repository: Repository, revision: str) -> str | None:
        commit = repository.resolve(revision)
        if commit is None:
            self.send(404, {}, {"X-Error-Code": "RevisionNotFound"})
        return commit

    def do_revision(self, name: str, repository: Repository, rest: list[str]) -> None:
        if commit := self.commit_of(repository, rest[0]):
            files = [{"rfilename": path} for path in repository.commits[commit]]
            about = {"_id": "x", "id": name, "modelId": name, "sha": commit, "private": repository.private}
            self.send(200, about | {"siblings": files})

    def do_tree(self, _: str, repository: Repository, rest: list[str]) -> None:
        if commit := self.commit_of(repository, rest[0]):
            files = repository.commits[commit].items()
            self.send(200, [{"type": "file", "path": p, "size": len(c), "oid": oid_of(c)} for p, c in files])

    def do_refs(self, _: str, repository: Repository, __: list[str]) -> None:
        heads = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in repository.branches.items()]
        self.send(200, {"branches": heads, "converts": [], "tags": []})

    def do_resolve(self, _: str, repository: Repository, rest: list[str]) -> None:
        commit, path = self.commit_of(repository, rest[0]), "/".join(rest[1:])
        if commit is None:
            return
        content = repository.commits[commit].get(path)
        if content is None:
            self.send(404, {}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        if self.handler.command == "GET":
            self.hub.downloads.append(path)
        about = {"ETag": f'"{oid_of(content)}"', "X-Repo-Commit": commit, "X-Linked-Size": str(len(content))}
        self.send(200, content, about)

    def do_branch(self, _: str, repository: Repository, rest: list[str]) -> None:
        start = json.loads(self.body or b"{}").get("startingPoint", "main")
        if rest[0] in repository.branches:
            self.send(409, {"error": "exists"})
        else:
            repository.branches[rest[0]] = str(repository.resolve(start))
            self.send(200, {})

    def do_preupload(self, _: str, repository: Repository, rest: list[str]) -> None:
        if self.commit_of(repository, rest[0]):
            files = json.loads(self.body)["files"]
            modes = {file["path"]: "lfs" if file["size"] >= LFS_BYTES else "regular" for file in files}
            answers = [{"path": p, "uploadMode": m, "shouldIgnore": False, "oid": None} for p, m in modes.items()]
            self.send(200, {"files": answers})

    def do_batch(self, _: str, __: Repository, ___: list[str]) -> None:
        answers: list[dict[str, Any]] = []
        for item in json.loads(self.body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}"}}
            answers.append(item if item["oid"] in self.hub.objects else item | {"actions": upload})
        self.send(200, {"transfer": "basic", "objects": answers})

    def do_commit(self, name: str, repository: Repository, rest: list[str]) -> None:
        with self.hub.lock:
            parent = self.commit_of(repository, rest[0])
            if parent is None:
                return
            files = dict(repository.commits[parent])
            message = ""
            for item in map(json.loads, self.body.splitlines()):
                kind, value = item["key"], item["value"]
                if kind == "header":
                    message = value["summary"]
                    if value.get("parentCommit", parent) != parent:
                        self.send(412, {"error": "the branch has moved"})
                        return
                elif kind == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif kind == "lfsFile":
                    files[value["path"]] = self.hub.objects[value["oid"]]
                else:
                    assert kind == "deletedFile"
                    del files[value["path"]]
            oid = repository.commit(files, message, rest[0])
            self.send(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid})

    def send(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        about = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
        self.handler.send_response(status)
        for name, value in about.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()
        if self.handler.command != "HEAD":
            self.handler.wfile.write(body)
