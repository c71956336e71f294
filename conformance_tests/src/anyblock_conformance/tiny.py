"""A tiny Hugging Face checkpoint with random weights, in which every mistake shows."""

from __future__ import annotations

import copy
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from anyblock.modeling.skeleton import model_class
from anyblock.modeling.weights import quiet_loading

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def save_tiny(config: Any, folder: Path) -> Path:
    """Write a float32 checkpoint of a model with this configuration, and a tokenizer of numbered words.

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
        word_tokenizer(vocabulary_of(own)).save_pretrained(folder)
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


def word_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer whose words are `w0`, `w1` … for the token ids 0, 1 …, so that text is token ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({f"w{index}": index for index in range(vocabulary)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0")


def vocabulary_of(config: Any) -> int:
    """Return the vocabulary's size, also of a multimodal configuration."""
    return int(config.get_text_config().vocab_size)


def random_tokens(vocabulary: int, batch: int, length: int, seed: int) -> torch.Tensor:
    """Return int64 token ids `[batch, length]`, the same for the same arguments."""
    return torch.randint(0, vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed))
