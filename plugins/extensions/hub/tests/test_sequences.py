"""Whatever is done to a child, in any order: every folder and repository holds the model that was put there, or is refused."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock import convert_model, export_child, load_model
from anyblock.errors import CheckpointError
from anyblock_hub import push_child
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from transformers import AutoModelForCausalLM

pytestmark = pytest.mark.usefixtures("auto_classes")

IDS = torch.arange(1, 25).reshape(2, 12)
SINGLE = "model.safetensors"
LOADERS = {
    "load_model": load_model,
    "load_model with options": lambda path: load_model(path, attn_implementation="sdpa"),
    "AutoModelForCausalLM": lambda path: AutoModelForCausalLM.from_pretrained(path, dtype="auto").eval(),
}
loaders = st.sampled_from(sorted(LOADERS))
sizes = st.sampled_from(["50GB", "300KB"])


class Sequence(RuleBasedStateMachine):
    """A model in memory, the folder that it was loaded from, and what every folder is to compute.

    `child` and `hub` are set by the test.
    """

    child: Path
    hub: Any

    def __init__(self) -> None:
        super().__init__()
        self.scratch = Path(tempfile.mkdtemp(dir=self.child.parent))
        self.numbers = itertools.count()
        self.random = torch.Generator().manual_seed(0)
        self.folder = self.new()
        shutil.copytree(self.child, self.folder)
        self.sharded = False
        self.model = load_model(self.folder)
        self.saved = self.logits(self.model)

    def teardown(self) -> None:
        shutil.rmtree(self.scratch)

    def new(self) -> Path:
        return self.scratch / f"child-{next(self.numbers)}"

    def logits(self, model: Any) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = model(IDS, use_cache=False).logits
        return found

    def refused(self) -> bool:
        """Whether the folder was saved to in one file first and then in several, of which transformers reads the one."""
        return self.sharded and (self.folder / SINGLE).exists()

    def moved_to(self, folder: Path) -> None:
        """Go on with a folder that was written from this one."""
        self.folder, self.sharded = folder, False
        self.check()

    @rule(loader=loaders)
    def check(self, loader: str = "load_model") -> None:
        """The folder holds what was put there last."""
        if not self.refused():
            assert torch.equal(self.logits(LOADERS[loader](self.folder)), self.saved)
            return
        with pytest.raises(CheckpointError, match="two models"):
            load_model(self.folder)

    @rule(loader=loaders)
    @precondition(lambda self: not self.refused())
    def load(self, loader: str) -> None:
        self.model = LOADERS[loader](self.folder)
        assert torch.equal(self.logits(self.model), self.saved)

    @rule()
    def generate(self) -> None:
        with_cache, without = (
            self.model.generate(IDS, max_new_tokens=4, do_sample=False, use_cache=cached, pad_token_id=0)
            for cached in (True, False)
        )
        assert torch.equal(with_cache, without)

    @rule()
    def train(self) -> None:
        before = self.logits(self.model)
        self.model(IDS, labels=IDS).loss.backward()
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.sub_(0.01 * parameter.grad.sign())
                parameter.grad = None
        assert not torch.equal(self.logits(self.model), before)

    @rule()
    def adapt_and_merge(self) -> None:
        peft = pytest.importorskip("peft")
        before = self.logits(self.model)
        config = peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
        adapted = peft.get_peft_model(self.model, config)
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_" in name:
                    parameter.copy_(0.1 * torch.randn(parameter.shape, generator=self.random))
        self.model = adapted.merge_and_unload().eval()
        for parameter in self.model.parameters():
            parameter.requires_grad_(True)
        assert not torch.equal(self.logits(self.model), before)

    @rule(size=sizes)
    def save_in_place(self, size: str) -> None:
        self.model.save_pretrained(self.folder, max_shard_size=size)
        self.saved, self.sharded = self.logits(self.model), size != "50GB"
        self.check()

    @rule(size=sizes)
    def save_elsewhere(self, size: str) -> None:
        folder = self.new()
        self.model.save_pretrained(folder, max_shard_size=size)
        self.saved = self.logits(self.model)
        self.moved_to(folder)

    @rule()
    def convert(self) -> None:
        self.write(lambda folder: convert_model(self.folder, folder))

    @rule()
    def export(self) -> None:
        self.write(lambda folder: export_child(self.folder, folder, "transformers"))

    @rule(form=st.sampled_from([None, "transformers"]))
    def push(self, form: str | None) -> None:
        def pushed(folder: Path) -> None:
            push_child(self.folder, "owner/child", format_name=form, overwrite=True)
            for name, content in self.hub.repositories["owner/child"].files().items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)

        self.write(pushed)

    def write(self, step: Any) -> None:
        folder = self.new()
        if self.refused():
            with pytest.raises(CheckpointError, match="two models"):
                step(folder)
            assert not folder.exists()
        else:
            step(folder)
            self.moved_to(folder)


@pytest.mark.slow
def test_a_child_is_what_it_was_made_into(
    trained_child: Path, tmp_path: Path, connected: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", server.TOKEN)
    child = Path(shutil.copytree(trained_child, tmp_path / "child"))
    machine = type("OfThisTest", (Sequence,), {"child": child, "hub": connected})
    options = settings(
        max_examples=8,
        stateful_step_count=10,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=options)


ONTO_A_CHILD = """
import json, sys, torch
from anyblock import load_model
from anyblock.errors import CheckpointError
from anyblock_hub import push_child
from transformers import AutoModelForCausalLM
ids = torch.arange(1, 25).reshape(2, 12)
push_child(sys.argv[1], "owner/child")
model = load_model("owner/child")
with torch.no_grad():
    for parameter in model.parameters():
        parameter.mul_(1.1)
    expected = model(ids).logits
    model.push_to_hub("owner/child", max_shard_size=sys.argv[2])
    loaded = load_model("owner/child"), AutoModelForCausalLM.from_pretrained("owner/child", dtype="auto")
    print(json.dumps([torch.equal(each(ids).logits, expected) for each in loaded]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("size", ["50GB", "300KB"])
def test_what_transformers_pushes_onto_a_child_counts(
    size: str, hub: Any, server: Any, call: Any, trained_child: Path
) -> None:
    """The child's own files stay in the repository."""
    assert call(ONTO_A_CHILD, trained_child, size, HF_TOKEN=server.TOKEN) == [True, True]
    assert any(name.startswith("subblocks_safetensors/") for name in hub.repositories["owner/child"].files())
