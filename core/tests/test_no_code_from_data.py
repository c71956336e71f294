"""No code comes from data: the sources hold nothing that could run it, and what tries to smuggle some in is refused unrun."""

from __future__ import annotations

import ast
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from anyblock import convert_model, evaluate, load_model
from anyblock.calibration.tokenizer import load_tokenizer
from anyblock.config import RunConfig, load_config
from anyblock.costs.cost_model import Scenario
from anyblock.errors import CheckpointError, InputError
from anyblock.export.export import export_child
from anyblock.pipeline.compress import compress
from anyblock.pipeline.inspection import inspect_model

ROOT = next(folder for folder in Path(__file__).parents if (folder / "noxfile.py").is_file())
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "pandas"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
LOADERS = {
    "torch.load",
    "torch.jit.load",
    "numpy.load",
    "np.load",
    "torch.hub.load",
    "runpy.run_path",
    "runpy.run_module",
}
LOADERS |= {
    f"yaml.{name}" for name in ("load", "load_all", "full_load", "unsafe_load", "Loader", "FullLoader", "UnsafeLoader")
}


def sources() -> list[Path]:
    return sorted(
        path for part in ("core", "conformance_tests", "plugins/*") for path in ROOT.glob(f"{part}/src/**/*.py")
    )


def forbidden(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module for _ in [0] if node.module.partition(".")[0] in MODULES)
            yield from (f"{node.module}.{a.name}" for a in node.names if f"{node.module}.{a.name}" in LOADERS)
        elif isinstance(node, ast.Name) and node.id in BUILTINS:
            yield node.id
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in LOADERS:
            yield ast.unparse(node)


def test_the_sources_cannot_run_data() -> None:
    assert len(sources()) > 200
    found = {str(path.relative_to(ROOT)): list(forbidden(ast.parse(path.read_text()))) for path in sources()}
    assert not {path: names for path, names in found.items() if names}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from torch import load",
        "torch.load(f)",
        "eval(x)",
        "f = exec",
        "yaml.load(x)",
        "import dill as d",
    ],
)
def test_the_search_finds_what_it_looks_for(code: str) -> None:
    assert list(forbidden(ast.parse(code)))


class Payload:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "it-ran"


@pytest.fixture
def model(llama_dir: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(llama_dir, folder)
    return folder


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def entries(settings: dict[str, Any], out: Path) -> dict[str, Callable[[Path], object]]:
    return {
        "convert": lambda model: convert_model(model, out),
        "inspect": lambda model: inspect_model(model, Scenario()),
        "load": load_model,
        "evaluate": lambda model: evaluate(model, data=settings["data"]["path"]),
        "export": lambda model: export_child(model, out, "transformers"),
        "compress": lambda model: compress(RunConfig.model_validate({**settings, "model": str(model)})),
    }


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    text = tmp_path / "text.txt"
    text.write_text("the river runs under the old stone house.\n" * 60)
    sizes = {
        "block_size": 32,
        "calibration_tokens": 256,
        "scoring_tokens": 64,
        "evaluation_tokens": 64,
        "batch_size": 2,
    }
    return {
        "output": str(tmp_path / "child"),
        "data": {"path": str(text), **sizes},
        "pruning": {"ffn": {"sizes": [0.5]}},
        "search": {"budget": {"params": "0.8x"}, "refine_rounds": 0},
        "device": "cpu",
    }


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "consolidated.00.pth", "model.ckpt"])
@pytest.mark.parametrize("entry", ["convert", "inspect", "load", "evaluate", "export", "compress"])
def test_pickles_are_refused_and_never_opened(
    model: Path, mark: Path, tmp_path: Path, settings: dict[str, Any], name: str, entry: str
) -> None:
    (model / "model.safetensors").unlink()
    (model / name).write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(InputError) as raised:
        entries(settings, tmp_path / "out")[entry](model)
    if entry != "export":  # which only takes subblock checkpoints
        assert isinstance(raised.value, CheckpointError)
        assert name in str(raised.value)
        assert "pickles and are not loaded" in str(raised.value)
        assert "save_pretrained" in raised.value.hint
    assert not mark.exists()
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "child.run").exists()


def test_pickles_beside_the_weights_stay_where_they_are(model: Path, mark: Path, tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "x.pkl"):
        (model / name).write_bytes(pickle.dumps(Payload(mark)))
    out = convert_model(model, tmp_path / "out")
    load_model(model)
    load_model(out)
    assert not mark.exists()
    assert not [path for path in out.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]


def remote_code(model: Path, mark: Path) -> None:
    (model / "evil.py").write_text(
        f"open({str(mark)!r}, 'w')\n"
        "from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast\n"
        "class Config(LlamaConfig):\n    model_type = 'evil'\n"
        "class Model(LlamaForCausalLM):\n    config_class = Config\n"
        "class Tokenizer(PreTrainedTokenizerFast):\n    pass\n"
    )
    edit(
        model / "config.json",
        model_type="evil",
        auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
    )
    edit(
        model / "tokenizer_config.json",
        auto_map={"AutoTokenizer": [None, "evil.Tokenizer"]},
        tokenizer_class="Tokenizer",
    )


@pytest.mark.parametrize("entry", ["convert", "inspect", "load", "evaluate", "export", "compress"])
def test_remote_code_is_refused(model: Path, mark: Path, tmp_path: Path, settings: dict[str, Any], entry: str) -> None:
    remote_code(model, mark)
    with pytest.raises(InputError):
        entries(settings, tmp_path / "out")[entry](model)
    with suppress(InputError):
        load_tokenizer(model)
    assert not mark.exists()


def test_remote_code_runs_with_the_option(model: Path, mark: Path) -> None:
    """Otherwise the tests above would prove nothing."""
    remote_code(model, mark)
    with suppress(Exception):
        load_model(model, trust_remote_code=True)
    assert mark.exists()


@pytest.mark.parametrize(
    "line",
    [
        "model: !!python/object/apply:pathlib.Path.touch [{mark}]",
        "model: !!python/object/apply:os.system ['touch {mark}']",
        "model: !!python/name:os.system",
        "pruning: {{ffn: {{_target_: os.system, command: 'touch {mark}'}}}}",
        "pruning: {{ffn: {{hook: '${{get_object:os.system}}'}}}}",
        "model: ${{eval:open('{mark}','w')}}",
    ],
)
def test_yaml_cannot_import(mark: Path, tmp_path: Path, line: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(line.format(mark=mark) + "\n")
    with pytest.raises(InputError):
        load_config(file)
    assert not mark.exists()


def test_a_run_folder_is_data_alone(model: Path, settings: dict[str, Any]) -> None:
    run = compress(RunConfig.model_validate({**settings, "model": str(model)})).run
    kinds = {path.suffix or path.name for path in run.rglob("*") if path.is_file()}
    assert {".json", ".yaml", ".safetensors", ".md"} <= kinds
    assert kinds <= {".json", ".jsonl", ".yaml", ".safetensors", ".md", ".html", ".lock"}
