"""The text parts of published models; see `anyblock_conformance.published`.

Sizes of 31B: https://huggingface.co/mlboydaisuke/Gemma-4-31B-CoreAI ("60 layers, hidden 5376, 32 heads, vocab 262144,
softcap 30, tied embeddings. 5:1 sliding:full; dual head_dim (sliding 256 / full global_head_dim 512); full layers use
num_global_key_value_heads 4 with attention_k_eq_v") and https://apxml.com/models/gemma-4-31b (30.7B parameters, 16
key-value heads, an FFN of 21,504, windows of 1,024).

Sizes of 26B-A4B: https://apxml.com/models/gemma-4-26b-a4b (25.2B parameters, 30 layers, 16 heads, 8 key-value heads, 128
experts of 704 of which 8 are active, 2,112 for the dense FFN), https://www.colaberry.ai (25 layers with windows, 5 without)
and transformers' own comment in `configuration_gemma4.py` (`num_global_key_value_heads=2`); the hidden size is the one with
which these make 25.2B.
"""

from anyblock_conformance.published import Published, published_tests

TEXT = {
    "architectures": ["Gemma4ForCausalLM"],
    "attention_k_eq_v": True,
    "final_logit_softcapping": 30.0,
    "global_head_dim": 512,
    "head_dim": 256,
    "hidden_size_per_layer_input": 0,
    "max_position_embeddings": 262144,
    "model_type": "gemma4_text",
    "num_kv_shared_layers": 0,
    "sliding_window": 1024,
    "torch_dtype": "bfloat16",
    "vocab_size": 262144,
}

test_published = published_tests(
    [
        Published(
            "gemma-4-31B",
            {
                **TEXT,
                "hidden_size": 5376,
                "intermediate_size": 21504,
                "num_attention_heads": 32,
                "num_global_key_value_heads": 4,
                "num_hidden_layers": 60,
                "num_key_value_heads": 16,
            },
            params=30_697_345_340,
            kv_bytes=2 * 2 * (10 * 4 * 512 * 131072 + 50 * 16 * 256 * 1023),
            length=131072,
        ),
        Published(
            "gemma-4-26B-A4B",
            {
                **TEXT,
                "enable_moe_block": True,
                "hidden_size": 2816,
                "intermediate_size": 2112,
                "moe_intermediate_size": 704,
                "num_attention_heads": 16,
                "num_experts": 128,
                "num_global_key_value_heads": 2,
                "num_hidden_layers": 30,
                "num_key_value_heads": 8,
                "top_k_experts": 8,
            },
            params=25_233_141_790,
            kv_bytes=2 * 2 * (5 * 2 * 512 * 131072 + 25 * 8 * 256 * 1023),
            length=131072,
        ),
    ]
)
