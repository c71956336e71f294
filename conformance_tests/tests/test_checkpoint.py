"""One checkpoint: config and headers alone, and everything with `full`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from anyblock.family import ModelFamily
from anyblock_conformance import run_checkpoint
from anyblock_conformance.large import write_large
from anyblock_conformance.subject import Subject
from anyblock_conformance.tiny import save_tiny
from mutants.good import Dense, Sparse
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def family():
    return ModelFamily.from_descriptor(Dense, model_type="llama")


@pytest.fixture
def checkpoint(family, tmp_path):
    return save_tiny(family.conformance_config(), tmp_path / "model")


def rewrite(path, change):
    """Change the tensors of a checkpoint."""
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors", {"format": "pt"})


def reconfigure(path, **changes):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | changes))


def failures(report):
    return {result.id: result.message for result in report.failures}


def test_a_good_checkpoint_passes_on_headers_and_says_what_was_not_run(family, checkpoint):
    report = run_checkpoint(checkpoint, family=family)
    assert report.passed
    assert report.scope == "headers"
    assert [level.state for level in report.levels] == ["passed", "not run", "not run", "not run", "not run"]
    assert report.counts["ran"] == 15
    assert all("--full" in r.message or "tiny model" in r.message for r in report.results if r.outcome == "skipped")


@pytest.mark.parametrize("descriptor", [Dense, Sparse])
def test_a_good_checkpoint_passes_in_full(descriptor, tmp_path):
    own = ModelFamily.from_descriptor(descriptor, model_type=descriptor._model_type)
    path = save_tiny(own.conformance_config(), tmp_path / "model")
    report = run_checkpoint(path, family=own, full=True)
    assert report.passed, failures(report)
    assert [level.state for level in report.levels] == ["passed"] * 4 + ["not run"]


def test_a_tied_checkpoint_passes_in_full(family, tmp_path):
    config = family.conformance_config()
    config.tie_word_embeddings = True
    report = run_checkpoint(save_tiny(config, tmp_path / "model"), family=family, full=True)
    assert report.passed, failures(report)


def test_a_child_is_a_checkpoint_as_well(family, tmp_path):
    from anyblock_conformance.children import candidates_without, write_child

    subject = Subject(family, tmp_path)
    child = write_child(subject, candidates_without(subject, [(0, "attention"), (1, "ffn")]))
    for full in (False, True):
        report = run_checkpoint(child, family=family, full=full)
        assert report.passed, failures(report)


def test_headers_only_means_that_no_weight_is_read(family, tmp_path, monkeypatch):
    """A checkpoint of which every tensor is a hole, 100 GB in all, takes seconds and no memory."""
    from anyblock_conformance import large

    monkeypatch.setattr(large, "EXTRA", 50 << 30)
    (tmp_path / "work").mkdir()
    assert write_large(Subject(family, tmp_path / "work"), tmp_path / "large") > 90 << 30
    begin = time.process_time()
    assert run_checkpoint(tmp_path / "large", family=family).passed
    assert time.process_time() - begin < 60


WRONG = {
    "a tensor is missing": (
        lambda t: t.pop("model.layers.1.mlp.up_proj.bias"),
        {},
        ("structure.block-configs", "no tensor for model.layers.1.mlp.up_proj.bias, [24]"),
    ),
    "a tensor is too much": (
        lambda t: t.update({"model.layers.0.self_attn.sinks": torch.zeros(4)}),
        {},
        ("structure.block-configs", "model.layers.0.self_attn.sinks"),
    ),
    "a tensor of another family": (
        lambda t: t.update({"visual.patch.weight": torch.zeros(4, 4)}),
        {},
        ("structure.tensor-groups", "no group takes visual.patch.weight"),
    ),
    "a layer has another width": (
        lambda t: t.update({f"model.layers.1.mlp.{n}_proj.weight": torch.zeros(20, 16) for n in ("gate", "up")}),
        {},
        ("structure.block-configs", "[20, 16]"),
    ),
    "the head is missing and not tied": (
        lambda t: t.pop("lm_head.weight"),
        {},
        ("structure.outer-groups", "no tensor of lm_head, which is not tied"),
    ),
    "a matrix is quantized": (
        lambda t: t.update({"model.layers.0.mlp.up_proj.weight": torch.zeros(24, 16, dtype=torch.int8)}),
        {},
        ("structure.dtypes", "model.layers.0.mlp.up_proj.weight is stored as I8"),
    ),
    "the config names another dtype": (lambda t: None, {"dtype": "bfloat16"}, ("structure.dtypes", "bfloat16")),
    "the config has another vocabulary": (lambda t: None, {"vocab_size": 60}, ("structure.block-configs", "[60, 16]")),
    "the config has more layers": (
        lambda t: None,
        {"num_hidden_layers": 3},
        ("structure.tensor-groups", "block_2_attention has no tensor"),
    ),
}


@pytest.mark.parametrize("fault", list(WRONG))
def test_a_wrong_checkpoint_is_told_apart_by_its_fault(family, checkpoint, fault):
    change, config, (check, text) = WRONG[fault]
    rewrite(checkpoint, change)
    reconfigure(checkpoint, **config)
    report = run_checkpoint(checkpoint, family=family)
    found = failures(report)
    assert list(found) == [check], found
    assert text in found[check]
    assert not report.passed


# -- hub ids ---------------------------------------------------------------------------------------------------------


class Hub(BaseHTTPRequestHandler):
    """Speaks as much of the hub's protocol as reading headers needs, and counts the bytes of weights that it gives."""

    protocol_version = "HTTP/1.1"
    folder: Path
    given = 0

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/"):
            files = [{"rfilename": file.name} for file in self.folder.iterdir()]
            tree = [
                {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "0" * 40}
                for f in self.folder.iterdir()
            ]
            info = {"_id": "x", "id": "owner/toy", "modelId": "owner/toy", "sha": "1" * 40, "siblings": files}
            self.send(200, json.dumps(tree if "/tree/" in path else info).encode())
            return
        file = self.folder / path.rpartition("/")[2]
        if not file.is_file():
            self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        content = file.read_bytes()
        wanted = self.headers.get("Range")
        if wanted:
            begin, end = wanted.removeprefix("bytes=").split("-")
            content = content[int(begin) : int(end) + 1]
        if file.suffix == ".safetensors" and self.command == "GET":
            type(self).given += len(content)
        self.send(206 if wanted else 200, content, {"ETag": f'"{file.name}"', "X-Repo-Commit": "1" * 40})

    def send(self, status, body, headers=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("sharded", [False, True])
def test_of_a_hub_id_only_headers_are_fetched(checkpoint, tmp_path, sharded):
    if sharded:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(checkpoint)
        shutil.rmtree(checkpoint)
        model.save_pretrained(checkpoint, max_shard_size="8KB")
        assert len(list(checkpoint.glob("*.safetensors"))) > 2
    weights = {path: path.stat().st_size for path in checkpoint.glob("*.safetensors")}
    for path, size in weights.items():
        with path.open("ab") as file:  # the header says how long the data is; what lies behind is never asked for
            file.write(b"\0" * (1 << 20))
        assert path.stat().st_size > size
    handler = type("Handler", (Hub,), {"folder": checkpoint, "given": 0})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
        "HF_HOME": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from anyblock_conformance import run, target; from anyblock.family import ModelFamily; from mutants.good import Dense\n"
        "run.get_family = lambda name: ModelFamily.from_descriptor(Dense, model_type='llama')\n"
        "report = target.run_target('owner/toy')\n"
        "print(report.passed, report.scope, report.subject, report.counts['ran'], report.command)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(maxsplit=4)[:4] == ["True", "headers", "owner/toy", "15"]
    assert "anyblock conformance owner/toy" in done.stdout
    assert 0 < handler.given <= 100_001 * len(weights)
