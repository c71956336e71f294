"""Shapes and storage types in one search: what is counted, scored and chosen is what the exported file holds."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from anyblock import evaluate, export_child, load_model
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.config import load_config
from anyblock.contract.storage_type import STORAGE
from anyblock.errors import AnyBlockError, BudgetError, UnsupportedModelError, UsageError
from anyblock.pipeline.compress import CompressResult, compress
from anyblock.pipeline.saved_search import Restrictions, search_run
from anyblock.run.run_folder import RunFolder
from anyblock.stages.candidates import read_candidates
from anyblock.stages.data import read_batches
from anyblock.stages.scores import read_scores
from anyblock_gguf.library import library, library_path
from anyblock_gguf.storage import IN_PYTHON, stored
from anyblock_gguf.types import TYPES, GgufType
from anyblock_tests.fixtures import TRAINED
from anyblock_tests.stopping import Stop, StopAfter
from gguf import GGMLQuantizationType as Kind
from hypothesis import given, settings
from hypothesis import strategies as st

SIZES = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "tie_word_embeddings": False,
}  # fmt: skip
PROMPT = [5, 12, 90, 3, 7, 21, 55, 60, 2, 9, 33, 44, 8, 1, 77, 6]
TEXT = (
    "\n".join(f"{a} {b} {c} {a}." for a in ("tree", "house", "a") for b in ("sees", "is") for c in ("old", "the")) * 9
)
FAMILIES = {"Llama": "llama", "Qwen3": "qwen3"}
needs_library = pytest.mark.skipif(library_path() is None, reason="xllamacpp is not installed")


def model_dir(family: str, folder: Path, **changes: Any) -> Path:
    pytest.importorskip(f"anyblock_{FAMILIES[family]}")
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config")(**SIZES | changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.15 + (0.5 if parameter.dim() == 1 else 0.0))
    model.save_pretrained(folder)
    for file in TRAINED.glob("tokenizer*"):
        shutil.copy(file, folder)
    return folder


def config_of(model: Path, output: Path, *overrides: str) -> Any:
    text = output.with_name("text.txt")
    text.write_text(TEXT)
    tokens = ["block_size=32", "calibration_tokens=256", "scoring_tokens=64", "evaluation_tokens=64", "batch_size=2"]
    keys = ["device=cpu", "pruning.ffn.sizes=[0.5]", "search.refine_rounds=1", f"data.path={text}"]
    keys += [f"data.{entry}" for entry in tokens]
    return load_config(None, [*keys, *overrides], {"model": str(model), "output": str(output)})


@dataclass
class Run:
    """A finished run and its export."""

    model: Path
    result: CompressResult
    file: Path

    @property
    def costs(self) -> dict[str, float]:
        return self.result.solution.costs


OPTIONS = ("storage.types=[q8_0,q5_0,q4_0]", "search.budget=[bytes=0.5x]")


@pytest.fixture(scope="module", params=FAMILIES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp(request.param)
    model = model_dir(request.param, folder / "model")
    exact = "scoring.method=exact"
    result = compress(config_of(model, folder / "child", *OPTIONS, exact))
    (file,) = export_child(result.child.path, folder / "out", "gguf").iterdir()
    return Run(model, result, file)


def frame(model: Path) -> int:
    config = transformers.AutoConfig.from_pretrained(model)
    return GgufType("f16").frame(model, config, config.num_hidden_layers)


def values(file: Path) -> dict[str, np.ndarray]:
    tensors = gguf.GGUFReader(file).tensors
    return {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in tensors}


def test_the_file_takes_what_was_counted_and_keeps_the_budget(run: Run) -> None:
    bound = 0.5 * run.result.summary.teacher_costs["bytes"]
    tensors = gguf.GGUFReader(run.file).tensors
    assert sum(int(tensor.n_bytes) for tensor in tensors) == run.costs["bytes"] - frame(run.model)
    assert run.file.stat().st_size <= run.costs["bytes"] <= bound


def test_a_share_is_one_of_the_teachers_file_in_16_bits(run: Run, tmp_path: Path) -> None:
    (file,) = export_child(run.result.run / "teacher", tmp_path / "out", "gguf", settings={"type": "f16"}).iterdir()
    tensors = gguf.GGUFReader(file).tensors
    whole = run.result.summary.teacher_costs["bytes"]
    assert sum(int(tensor.n_bytes) for tensor in tensors) == whole - frame(run.model)
    assert file.stat().st_size <= whole


def test_the_file_holds_the_types_and_values_that_were_evaluated(run: Run, tmp_path: Path) -> None:
    stated = run.result.child.config[STORAGE]
    assert stated["format"] == "gguf"
    choices = dict(run.result.solution.choices)
    embeddings, head = choices.pop("embeddings"), choices.pop("lm_head")
    assert (stated["types"]["embeddings"], stated["types"]["lm_head"]) == (embeddings, head)
    chosen = {group: label.partition("@")[2] for group, label in choices.items()}
    assert {group: stated["types"][group] for group in chosen if chosen[group]} == {
        g: t for g, t in chosen.items() if t
    }
    kinds = {tensor.name: tensor.tensor_type.name.lower() for tensor in gguf.GGUFReader(run.file).tensors}
    assert (kinds["token_embd.weight"], kinds["output.weight"]) == (embeddings, head)
    for group, name in chosen.items():
        place = "attn_q" if group.endswith("attention") else "ffn_up"
        if name:
            assert kinds[f"blk.{group.split('_')[1]}.{place}.weight"] == name
    (wide,) = export_child(run.result.run / "rounded", tmp_path / "out", "gguf", settings={"type": "f32"}).iterdir()
    rounded, read = values(wide), values(run.file)
    assert rounded.keys() == read.keys()
    assert all(np.array_equal(rounded[name], read[name]) for name in read)


def test_the_evaluation_is_of_the_rounded_child_and_the_folder_has_the_weights_as_they_were(run: Run) -> None:
    found = run.result.evaluation
    batches = read_batches(RunFolder(run.result.run), 2)["evaluation"]
    teacher = load_model(run.result.run / "teacher", dtype="float32")
    again, plain = (
        evaluate(load_model(path, dtype="float32"), data=batches, teacher=teacher)
        for path in (run.result.run / "rounded", run.result.child.path)
    )
    assert found is not None
    assert found.kl_per_token == pytest.approx(again.kl_per_token, rel=1e-3, abs=1e-6)
    assert found.kl_per_token > plain.kl_per_token
    whole = SubblockCheckpoint.open(run.result.run / "teacher")
    for group, label in run.result.solution.choices.items():
        if label.startswith("teacher@"):
            for name, tensor in whole.load(group).items():
                assert torch.equal(tensor, run.result.child.load(group)[name])
    assert "Storage types for the format gguf" in (run.result.run / "report.md").read_text()


@pytest.mark.numerical
def test_llama_cpp_computes_what_the_rounded_child_computes(run: Run, llama_cpp: Any) -> None:
    found = llama_cpp([run.file.parent], prompt=PROMPT)["logits_0"]
    with torch.no_grad():
        logits = load_model(run.result.run / "rounded", dtype="float32")(torch.tensor([PROMPT])).logits[0]
    assert float(((torch.from_numpy(found) - logits) / logits.std()).square().mean().sqrt()) < 0.1


@pytest.mark.numerical
def test_exact_scores_are_those_of_models_in_which_one_group_is_rounded(run: Run) -> None:
    costed, scores = read_candidates(RunFolder(run.result.run)), read_scores(RunFolder(run.result.run))
    batches = read_batches(RunFolder(run.result.run), 2)["scoring"]
    teacher = load_model(run.result.run / "teacher", dtype="float32")
    checkpoint = SubblockCheckpoint.open(run.result.run / "teacher")
    asked = [(c.key, c.group, c.storage) for c in costed.candidates if c.kind == "teacher" and c.storage != "q5_0"]
    asked += [(f"{g}@{name}", g, name) for g in ("embeddings", "lm_head") for name in ("q8_0", "q4_0")]
    assert len(asked) == 12
    for key, group, storage in asked:
        model = load_model(run.result.run / "teacher", dtype="float32")
        for name, tensor in checkpoint.load(group).items():
            model.get_parameter(name).data.copy_(GgufType(storage).rounded(name, tensor))
        with torch.no_grad():
            total = sum(
                float(torch.nn.functional.kl_div(
                    model(ids).logits.log_softmax(-1), teacher(ids).logits.log_softmax(-1), log_target=True,
                    reduction="sum",
                ))
                for ids in batches
            )  # fmt: skip
        assert scores[key] == pytest.approx(total / batches.tokens, rel=1e-3, abs=1e-7), key


def test_every_uniform_quantization_is_contained_and_never_better_at_equal_bytes(run: Run) -> None:
    costed, scores = read_candidates(RunFolder(run.result.run)), read_scores(RunFolder(run.result.run))
    assert costed.outside.keys() == {"embeddings", "lm_head"}
    labels = {candidate.group: set() for candidate in costed.candidates}
    for candidate in costed.candidates:
        labels[candidate.group].add(candidate.label)
    for name in ("q8_0", "q5_0", "q4_0"):
        assert all(f"teacher@{name}" in own for own in labels.values())
        keys = [f"{group}:teacher@{name}" for group in labels]
        size = costed.fixed["bytes"] + sum(costed.costs[key]["bytes"] for key in keys)
        size += sum(sizes[name] for sizes in costed.outside.values())
        keys += [f"{group}@{name}" for group in costed.outside]
        (found,) = search_run(run.result.run, [f"bytes={int(size)}"]).solutions
        assert found.score <= sum(scores[key] for key in keys) * (1 + 1e-3)
        (alike,) = search_run(
            run.result.run, [f"bytes={int(size)}"], restrictions=Restrictions(homogeneous=True)
        ).solutions
        assert alike.score >= found.score * (1 - 1e-3)


def test_families_whose_layers_cannot_differ_get_types_alone(run: Run) -> None:
    costed = read_candidates(RunFolder(run.result.run))
    kinds = {candidate.kind for candidate in costed.candidates}
    pruned = run.model.parent.name.startswith("Llama")
    assert kinds == ({"teacher", "ffn_intermediate", "no_op"} if pruned else {"teacher"})


def test_other_formats_say_that_they_leave_the_types_out(run: Run, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"not in the storage types that the search chose for gguf"):
        export_child(run.result.child.path, tmp_path / "out", "transformers")
    (file,) = export_child(run.result.child.path, tmp_path / "given", "gguf", settings={"type": "q8_0"}).iterdir()
    kinds = {tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors}
    assert (file.name, kinds) == ("model-q8_0.gguf", {"Q8_0", "F32"})


def test_removed_halves_and_narrow_rows_stay_within_the_budget(tmp_path: Path) -> None:
    """llama.cpp needs halves of zeros where some are removed, and 8 bits do not divide rows of 20."""
    model = model_dir("Llama", tmp_path / "model", num_hidden_layers=4)
    keys = ("storage.types=[q8_0]", "pruning.ffn.sizes=[20]", "search.budget=[bytes=0.42x]", "search.refine_rounds=0")
    result = compress(config_of(model, tmp_path / "child", *keys))
    assert any(block.ffn.no_op or block.attention.no_op for block in result.child.block_configs)
    (file,) = export_child(result.child.path, tmp_path / "out", "gguf").iterdir()
    assert file.stat().st_size <= result.solution.costs["bytes"] <= 0.42 * result.summary.teacher_costs["bytes"]


@needs_library
def test_a_budget_on_bytes_alone_offers_the_usual_types(tmp_path: Path, llama_cpp: Any) -> None:
    sizes = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64}
    model = model_dir("Llama", tmp_path / "model", **sizes)
    result = compress(config_of(model, tmp_path / "child", "search.budget=[bytes=0.37x]"))
    stored = {c.storage for c in read_candidates(RunFolder(result.run)).candidates}
    assert stored == {"", "q8_0", "q6_k", "q5_k", "q4_k", "q3_k", "q2_k"}
    assert {name: set(sizes) for name, sizes in read_candidates(RunFolder(result.run)).outside.items()} == {
        group: stored - {""} for group in ("embeddings", "lm_head")
    }
    out = export_child(result.child.path, tmp_path / "out", "gguf")
    (file,) = out.iterdir()
    assert file.stat().st_size <= result.solution.costs["bytes"] <= 0.37 * result.summary.teacher_costs["bytes"]
    with torch.no_grad():
        logits = load_model(result.run / "rounded", dtype="float32")(torch.tensor([PROMPT])).logits[0]
    found = llama_cpp([out], prompt=PROMPT)["logits_0"]
    assert float(((torch.from_numpy(found) - logits) / logits.std()).square().mean().sqrt()) < 0.1


def test_a_stopped_run_ends_like_one_that_was_not_and_other_types_are_another_run(tmp_path: Path) -> None:
    model = model_dir("Llama", tmp_path / "model")
    keys = (*OPTIONS, "scoring.exact_sample=4")
    whole = compress(config_of(model, tmp_path / "whole", *keys))
    again = partial(config_of, model, tmp_path / "again", *keys)
    for task in ("Estimating scores", "Scoring around the child", "Writing the child"):
        with pytest.raises(Stop):
            compress(again(), progress=StopAfter(1, task))
    found = compress(again())
    assert found.child.fingerprint() == whole.child.fingerprint()
    assert read_scores(RunFolder(found.run)) == read_scores(RunFolder(whole.run))
    assert found.evaluation is not None
    assert whole.evaluation is not None
    assert found.evaluation.kl_per_token == whole.evaluation.kl_per_token
    other = compress(again("storage.types=[q8_0,q4_0]", "storage.embeddings=q5_0"))
    choices = dict(other.solution.choices)
    assert choices.pop("embeddings") == choices.pop("lm_head") == "q5_0"
    assert {label.partition("@")[2] for label in choices.values()} <= {"", "q8_0", "q4_0"}


REFUSED: dict[str, tuple[list[str], type[AnyBlockError], str]] = {
    "an unknown type": (["storage.types=[q4_0,q9]"], UsageError, "no storage type 'q9'"),
    "an unknown type of embeddings": (
        ["storage.types=[q4_0]", "storage.embeddings=q9"],
        UsageError,
        "storage type 'q9'",
    ),
    "no row is long enough": (
        ["storage.types=[q8_0,q4_k]"],
        UsageError,
        "no tensor of this model can be stored in q4_k",
    ),
    "no type": (["storage.types=[]", "search.budget=[bytes=0.5x]"], UsageError, "storage.types"),
    "embeddings alone": (["storage.embeddings=q8_0"], UsageError, "without types for the halves"),
    "too few bytes": (["storage.types=[q8_0]", "search.budget=[bytes=0.01x]"], BudgetError, "bytes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_written(case: str, tmp_path: Path) -> None:
    keys, error, message = REFUSED[case]
    model = model_dir("Llama", tmp_path / "model")
    with pytest.raises(error, match=message):
        compress(config_of(model, tmp_path / "child", "search.budget=[params=0.9x]", *keys))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "text.txt"]


def test_a_tokenizer_that_llama_cpp_lacks_is_refused_before_anything_is_written(
    llama_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedModelError, match="its tokenizer is of the type WordLevel"):
        compress(config_of(llama_dir, tmp_path / "child", "storage.types=[q8_0]", "search.budget=[bytes=0.5x]"))
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


@pytest.mark.parametrize(("missing", "hint"), [("library", "anyblock-gguf[llama-cpp]"), ("types", "anyblock-gguf")])
def test_what_is_not_installed_is_named(
    missing: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_dir("Llama", tmp_path / "model", hidden_size=256, head_dim=64)
    if missing == "library":
        library.cache_clear()
        monkeypatch.setattr("anyblock_gguf.library.library_path", lambda: None)
    else:
        monkeypatch.setenv("ANYBLOCK_DISABLE_PLUGINS", "anyblock-gguf,anyblock-example-extension")
    for keys in (["search.budget=[bytes=0.5x]"], ["storage.types=[q4_k]", "search.budget=[params=0.9x]"]):
        with pytest.raises(UsageError) as caught:
            compress(config_of(model, tmp_path / "child", *keys))
        assert hint in caught.value.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "text.txt"]


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(TYPES),
    shape=st.lists(st.integers(1, 5), max_size=2),
    columns=st.integers(1, 600) | st.sampled_from([32, 64, 256, 512]),
    seed=st.integers(0, 9),
)
def test_bytes_are_counted_as_they_are_stored(name: str, shape: list[int], columns: int, seed: int) -> None:
    """Of any shape: so many bytes, whose values are the rounded tensor, and rounding again changes nothing more."""
    own, tensor = GgufType(name), torch.randn(*shape, columns, generator=torch.Generator().manual_seed(seed))
    kind = Kind[own.stored_as("weight", tensor.shape).upper()]
    if kind not in IN_PYTHON and library_path() is None:
        return
    data = stored("weight", tensor, kind, {})
    assert own.nbytes("weight", tensor.shape) == data.nbytes
    assert (kind == Kind.F32) == (tensor.dim() == 1)
    rounded = own.rounded("weight", tensor)
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded.flatten(), torch.from_numpy(gguf.quants.dequantize(data, kind)).flatten())
    if name == "f16":
        assert torch.equal(own.rounded("weight", rounded), rounded)


def test_a_malformed_entry_of_the_configuration_is_named(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "child"
    shutil.copytree(run.result.child.path, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {STORAGE: {"format": "gguf", "types": ["q8_0"]}}))
    with pytest.raises(AnyBlockError, match=f"{STORAGE} in config.json is malformed"):
        export_child(folder, tmp_path / "out", "gguf")
    assert not (tmp_path / "out").exists()


def test_a_head_that_is_the_embedding_has_its_type(tmp_path: Path) -> None:
    model = model_dir("Llama", tmp_path / "model", tie_word_embeddings=True)
    result = compress(config_of(model, tmp_path / "child", *OPTIONS, "search.refine_rounds=0"))
    costed, scores = read_candidates(RunFolder(result.run)), read_scores(RunFolder(result.run))
    assert costed.outside.keys() == {"embeddings"}
    assert scores["embeddings@q4_0"] > scores["embeddings@q8_0"] > 0
    (file,) = export_child(result.child.path, tmp_path / "out", "gguf").iterdir()
    tensors = gguf.GGUFReader(file).tensors
    assert {tensor.name: tensor.tensor_type.name.lower() for tensor in tensors}["token_embd.weight"] == (
        result.solution.choices["embeddings"]
    )
    assert sum(int(tensor.n_bytes) for tensor in tensors) == result.solution.costs["bytes"] - frame(model)


def test_a_metric_that_does_not_see_embeddings_leaves_them_in_the_largest_type(tmp_path: Path) -> None:
    model, keys = model_dir("Llama", tmp_path / "model"), (*OPTIONS, "scoring.metric=mse")
    with pytest.raises(UsageError, match=r"several storage\.embeddings"):
        compress(config_of(model, tmp_path / "child", *keys, "storage.embeddings=[q8_0,q4_0]"))
    result = compress(config_of(model, tmp_path / "child", *keys))
    assert result.child.config[STORAGE]["types"]["lm_head"] == "q8_0"


@needs_library
def test_types_that_a_half_would_have_alike_are_one_candidate(tmp_path: Path) -> None:
    """Rows of 64 in 6 bits are stored in 8; the down projection's, of 256, are not."""
    model = model_dir("Llama", tmp_path / "model", intermediate_size=256)
    keys = ("storage.types=[q8_0,q6_k]", "search.budget=[bytes=0.5x]", "search.refine_rounds=0")
    costed = read_candidates(RunFolder(compress(config_of(model, tmp_path / "child", *keys)).run))
    labels = {(c.half, c.label) for c in costed.candidates}
    assert ("attention", "teacher@q8_0") in labels
    assert ("attention", "teacher@q6_k") not in labels
    assert {("ffn", "teacher@q8_0"), ("ffn", "teacher@q6_k")} <= labels
    assert ("ffn", "ffn_intermediate=128@q6_k") not in labels
    assert {name: list(sizes) for name, sizes in costed.outside.items()} == {
        "embeddings": ["q8_0"],
        "lm_head": ["q8_0"],
    }
