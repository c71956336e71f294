"""A tiny Hugging Face checkpoint with random weights, in which every mistake shows."""

from __future__ import annotations

import copy
import string
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from anyblock.modeling.skeleton import model_class
from anyblock.modeling.weights import quiet_loading

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def save_tiny(config: Any, folder: Path) -> Path:
    """Write a float32 checkpoint of a model with this configuration, and a tokenizer for numbers.

    Norms and biases are random as well, so that a norm or bias that is lost, left unsorted or put in another place
    changes the output. The same configuration always gives the same weights.
    """
    own = copy.deepcopy(config)
    own.dtype = torch.float32
    with torch.random.fork_rng(devices=[]), quiet_loading():
        torch.manual_seed(0)
        model = model_class(own)._from_config(own, dtype=torch.float32)
        randomise(model)
        model.save_pretrained(folder)
        number_tokenizer().save_pretrained(folder)
    return folder


@torch.no_grad()
def randomise(model: Any) -> None:
    """Give every parameter and stored floating-point buffer values far from those that it begins with."""
    state = model.state_dict(keep_vars=True)
    for tensor_name, tensor in sorted({id(tensor): (name, tensor) for name, tensor in state.items()}.values()):
        if not tensor.is_floating_point():
            continue
        generator = torch.Generator().manual_seed(zlib.crc32(tensor_name.encode()))
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float32)
        if tensor.dim() < 2:
            tensor.add_(noise * 0.3)
        else:
            tensor.copy_(noise / tensor.shape[-1] ** 0.5)


def number_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of digits, `w` and white space, each character a token; 15 tokens in all.

    Some families have a tokenizer class of their own, with which transformers reads any `tokenizer.json`, and which keeps
    nothing of it but a byte-pair vocabulary and its merges. So this is one, with white space in byte-level form as well.
    """
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    characters = ["w", *string.digits, " ", "\n", "Ġ", "Ċ"]
    vocabulary = {character: index for index, character in enumerate(characters)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocabulary, [], unk_token="w")), unk_token="w")


def random_tokens(vocabulary: int, batch: int, length: int, seed: int) -> torch.Tensor:
    """Return int64 token ids `[batch, length]`, the same for the same arguments."""
    return torch.randint(0, vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed))
