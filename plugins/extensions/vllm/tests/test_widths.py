"""`--for vllm`: widths of which every device's share suits Marlin's kernels, and head counts that devices can share."""

from __future__ import annotations

from anyblock.config import load_config
from anyblock.run.model_source import read_source
from anyblock.stages.candidates import plan_candidates
from transformers import LlamaConfig, LlamaForCausalLM


def test_widths_and_heads_can_be_divided_among_devices(tmp_path):
    sizes = {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
    }
    LlamaForCausalLM(LlamaConfig(**sizes, intermediate_size=1024)).save_pretrained(tmp_path)
    source = read_source(tmp_path)

    def planned(*keys):
        given = ["pruning.ffn.sizes=[0.3,0.6]", "pruning.query_groups.sizes=[0.3,0.6]", *keys]
        config = load_config(None, given, {"model": str(tmp_path), "output": "o"})
        found = plan_candidates(config, source, source).candidates
        return {(candidate.kind, candidate.size) for candidate in found if candidate.size}

    def sizes_of(ffn, heads):
        return {("ffn_intermediate", size) for size in ffn} | {("query_groups", size) for size in heads}

    assert planned() == sizes_of((320, 640), (2, 5))
    assert planned("pruning.sizes_for=vllm") == sizes_of((256, 640), (2, 5))
    shared = ("pruning.sizes_for=vllm", "pruning.tensor_parallel=2")
    assert planned(*shared) == sizes_of((256, 512), (2, 4))
    own = ("pruning.ffn.multiple=5", "pruning.query_groups.multiple=1")
    assert planned(*shared, *own) == sizes_of((305, 615), (2, 5))
