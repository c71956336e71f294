"""A tokenizer of single bytes, and tiny models that go with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BYTE_VOCABULARY: Final = 258


def byte_tokenizer(*, bos: bool = True, eos: bool = False) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per byte, that puts `<s>` in front and `</s>` at the end of a text if asked."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<s>", "</s>", *letters])}
    tokenizer = Tokenizer(BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    single = f"{'<s> ' if bos else ''}$A{' </s>' if eos else ''}"
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<s>", 0), ("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", model_max_length=32)


def byte_model(folder: Path, kind: str = "llama", *, bos: bool = True, eos: bool = False, **changes: Any) -> Path:
    """Write a tiny random model of single bytes; returns its folder.

    Args:
        folder: where to.
        kind: its model type.
        bos, eos: see `byte_tokenizer`.
        **changes: of its configuration.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {
        "vocab_size": BYTE_VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64,
        "bos_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes | changes)).float()
    with torch.no_grad():  # far from zero, so that what stands in front changes every prediction
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.4 if parameter.dim() > 1 else 0.1))
    model.save_pretrained(folder)
    byte_tokenizer(bos=bos, eos=eos).save_pretrained(folder)
    return folder
