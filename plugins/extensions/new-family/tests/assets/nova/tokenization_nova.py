"""The tokenizer."""

import os
from pathlib import Path

from transformers import PreTrainedTokenizerFast

Path(os.environ["NOVA_RAN"]).touch()


class NovaTokenizer(PreTrainedTokenizerFast):
    """A tokenizer of bytes."""
