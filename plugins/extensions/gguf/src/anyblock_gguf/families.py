"""Which architecture of llama.cpp a family's models are written in."""

from __future__ import annotations

from anyblock_gguf.architecture import (
    Architecture,
    Gemma2,
    Gemma3,
    GptOss,
    Granite,
    Llama,
    Mixtral,
    Olmo3,
    Olmoe,
    Phi3,
    Qwen2,
    Qwen3,
    Qwen3Moe,
    SmolLM3,
)
from anyblock_gguf.deci import Deci
from anyblock_gguf.nemotron_h import NemotronH, NemotronHMoe


def families() -> dict[str, tuple[type[Architecture], ...]]:
    """Return by `model_type` the architectures that are tried, in this order."""
    return {
        "llama": (Llama, Deci),
        "mistral": (Llama, Deci),
        "mixtral": (Mixtral,),
        "granite": (Granite,),
        "smollm3": (SmolLM3,),
        "qwen2": (Qwen2, Deci),
        "qwen3": (Qwen3,),
        "qwen3_moe": (Qwen3Moe,),
        "olmoe": (Olmoe,),
        "olmo3": (Olmo3,),
        "gemma2": (Gemma2,),
        "gemma3_text": (Gemma3,),
        "phi3": (Phi3,),
        "gpt_oss": (GptOss,),
        "nemotron_h": (NemotronH, NemotronHMoe),
    }
