"""The configuration."""

import os
from pathlib import Path

from transformers import PreTrainedConfig

Path(os.environ["NOVA_RAN"]).touch()


class NovaConfig(PreTrainedConfig):
    """Sizes of the model."""

    model_type = "nova"

    vocab_size: int = 64
    hidden_size: int = 32
    intermediate_size: int = 48
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    max_position_embeddings: int = 256
    tie_word_embeddings: bool = False
