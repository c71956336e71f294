"""AnyBlock adapter for a model that transformers does not have: its classes are in `anyblock_pebble.model`."""

from __future__ import annotations

from typing import Any

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import DenseDescriptor


class PebbleDescriptor(DenseDescriptor):
    """A pre-norm decoder with learned positions; both norms have other names than usual."""

    decoder_layer = "anyblock_pebble.model.PebbleLayer"
    decoder_prefix = "trunk"
    attention, ffn = "mix", "feed"
    attention_norms, ffn_norms = ("mix_norm",), ("feed_norm",)
    attention_returns = 1
    checkpoint_embeddings = ("trunk.embed_tokens", "trunk.positions")
    not_implemented = ("hidden_size",)

    @hookimpl
    def model_classes(self) -> dict[str, type[Any]]:
        """See `FamilySpec.model_classes`."""
        from anyblock_pebble.model import PebbleConfig, PebbleForCausalLM

        return {"AutoConfig": PebbleConfig, "AutoModelForCausalLM": PebbleForCausalLM}

    @hookimpl
    def conformance_config(self) -> Any:
        """See `FamilySpec.conformance_config`."""
        from anyblock_pebble.model import PebbleConfig

        return PebbleConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2)
