"""The `transformers` format, each time in a process of its own, in which AnyBlock cannot be imported.

Each is a fork of one process, since importing torch and transformers takes much longer than what is run in it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from anyblock import export_child, load_model
from anyblock_tests.processes import run_python
from safetensors.torch import load_file, save_file

HEAD = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "anyblock" or name.startswith("anyblock_"):
            raise ModuleNotFoundError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
out, scratch, expected = sys.argv[1], sys.argv[2], torch.load(sys.argv[3])
load = lambda path, **options: AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True, **options)
ids = torch.arange(1, 25).reshape(2, 12)
logits = lambda model: model(ids).logits
"""
TRAINER = """
from transformers import Trainer, TrainingArguments
data = [{"input_ids": row, "labels": row} for row in torch.arange(1, 97).reshape(8, 12)]
arguments = TrainingArguments(
    scratch, max_steps=12, per_device_train_batch_size=8, learning_rate=3e-3, report_to=[], logging_steps=1,
    save_strategy="no", use_cpu=True, disable_tqdm=True, lr_scheduler_type="constant",
)
"""
LOSSES = """
losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
assert losses[-1] < 0.8 * losses[0], losses
"""
SCRIPTS = {
    "logits": """
model = load(out, dtype="auto")
assert type(model).__module__.startswith("transformers_modules."), type(model)
assert torch.equal(logits(model), expected)
""",
    "stock class": """
try:
    AutoModelForCausalLM.from_pretrained(out)
except RuntimeError as error:
    assert "per-layer attribute" in str(error), error
else:
    raise AssertionError("the stock class loaded it")
""",
    "generate": """
model = load(out, dtype="float32")
found = [model.generate(ids, max_new_tokens=12, do_sample=False, use_cache=cached) for cached in (True, False)]
assert torch.equal(*found), found
""",
    "pipeline": """
from transformers import pipeline
text = pipeline("text-generation", out, trust_remote_code=True)("Once", max_new_tokens=5)[0]["generated_text"]
assert text.startswith("Once") and len(text) > 4, text
""",
    "device_map": """
model = load(out, dtype="auto", device_map="auto")
assert torch.equal(logits(model), expected)
""",
    "save_pretrained": """
load(out, dtype="auto").save_pretrained(scratch)
assert torch.equal(logits(load(scratch, dtype="auto")), expected)
""",
    "base model": """
from transformers import AutoModel
model = load(out, dtype="auto")
bare = AutoModel.from_pretrained(out, trust_remote_code=True, dtype="auto")
hidden = bare(ids).last_hidden_state
assert torch.equal(model.lm_head(hidden), expected)
bare.save_pretrained(scratch)
again = AutoModel.from_pretrained(scratch, trust_remote_code=True, dtype="auto")
assert torch.equal(again(ids).last_hidden_state, hidden)
model.save_pretrained(scratch + "-whole")
again = AutoModel.from_pretrained(scratch + "-whole", trust_remote_code=True, dtype="auto")
assert torch.equal(again(ids).last_hidden_state, hidden)
""",
    "Trainer": TRAINER
    + "trainer = Trainer(load(out, dtype='float32'), arguments, train_dataset=data)\ntrainer.train()\n"
    + LOSSES,
    "PEFT": TRAINER
    + """
from peft import LoraConfig, PeftModel, get_peft_model
model = get_peft_model(load(out, dtype="float32"), LoraConfig(r=8, task_type="CAUSAL_LM", target_modules="all-linear"))
trainer = Trainer(model, arguments, train_dataset=data)
trainer.train()
"""
    + LOSSES
    + """
model.save_pretrained(scratch)
again = PeftModel.from_pretrained(load(out, dtype="float32"), scratch)
assert torch.equal(logits(again.eval()), logits(model.eval()))
""",
}


FORKS = """
import json, os, traceback
found = {}
for number, (name, script) in enumerate(json.load(sys.stdin).items()):
    scratch, log = f"{sys.argv[2]}-{number}", f"{sys.argv[2]}-{number}.log"
    child = os.fork()
    if not child:
        code = 1
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), 2)
        try:
            exec(script, globals())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    found[name] = [status, open(log, errors="replace").read()]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def ended(exported: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """How each script ended, and what it said."""
    (out, expected), folder = exported, tmp_path_factory.mktemp("scripts")
    arguments = (out, folder / "scratch", expected)
    shown = run_python("-c", HEAD + FORKS, *arguments, folder=folder, text=json.dumps(SCRIPTS))
    return json.loads(shown.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_it_works_in_a_process_without_anyblock(name, ended):
    if name == "PEFT":
        pytest.importorskip("peft")
    if name in ("device_map", "Trainer", "PEFT"):
        pytest.importorskip("accelerate")
    status, said = ended[name]
    assert status == 0, said[-3000:]


@pytest.mark.parametrize("damage", ["missing", "shape"])
def test_a_damaged_checkpoint_is_an_error_and_not_initialised_at_random(damage, exported, tmp_path):
    from transformers import AutoModelForCausalLM

    copy = tmp_path / "copy"
    copy.mkdir()
    for path in exported[0].iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    file = copy / "model-block_4_ffn.safetensors"
    tensors = load_file(file)
    name = "model.layers.4.mlp.up_proj.weight"
    tensors.update({name: tensors[name][:-1].clone()} if damage == "shape" else {})
    if damage == "missing":
        del tensors[name]
        index = json.loads((copy / "model.safetensors.index.json").read_text())
        del index["weight_map"][name]
        (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(RuntimeError, match=r"does not have the weights|mismatch|size"):
        AutoModelForCausalLM.from_pretrained(copy, trust_remote_code=True)


def test_the_config_says_it_in_transformers_own_terms(exported):
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(exported[0])
    layers = list(config.per_layer_config)
    assert [layer.skip for layer in layers] == [["attention"], ["attention", "mlp"], ["mlp"], [], [], ["mlp"]]
    assert (layers[3].num_key_value_heads, layers[4].intermediate_size, layers[3].intermediate_size) == (1, 96, 288)


def test_anyblock_loads_it_as_well(exported):
    assert torch.equal(load_model(exported[0])(torch.arange(1, 25).reshape(2, 12)).logits, torch.load(exported[1]))


def test_a_uniform_child_is_a_stock_checkpoint(trained_dir, tmp_path):
    from anyblock import get_family
    from anyblock.candidates.candidate import Candidate
    from anyblock.candidates.candidate_weights import CandidateWeights
    from anyblock.checkpoint.subblocks import SubblockCheckpoint
    from anyblock.modeling.skeleton import load_hf_config
    from anyblock.realize.realize import realize
    from transformers import AutoModelForCausalLM, LlamaForCausalLM

    teacher = SubblockCheckpoint.open(trained_dir)
    smaller = teacher.block_configs[0].with_ffn(intermediate_size=160)
    chosen = [Candidate(layer, "ffn", "ffn_intermediate", 160, smaller) for layer in range(6)]
    orders = {(layer, "ffn_intermediate"): torch.arange(288) for layer in range(6)}
    weights = CandidateWeights(teacher, get_family("llama"), load_hf_config(trained_dir), orders)
    child = realize(teacher, chosen, weights, tmp_path / "child")
    out = export_child(child, tmp_path / "out", "transformers")
    config = json.loads((out / "config.json").read_text())
    assert config["intermediate_size"] == 160
    assert not {"block_configs", "per_layer_config", "auto_map", "anyblock_layers"} & config.keys()
    model = AutoModelForCausalLM.from_pretrained(out, dtype="auto")
    assert type(model) is LlamaForCausalLM
    ids = torch.arange(1, 25).reshape(2, 12)
    assert torch.equal(model(ids).logits, load_model(child)(ids).logits)
