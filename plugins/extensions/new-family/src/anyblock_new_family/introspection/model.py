"""The tiny model that facts are read from, with its checkpoint's tensor names."""

from __future__ import annotations

import copy
import tempfile
import zlib
from pathlib import Path
from typing import Any, Final

import torch
from anyblock.errors import UnsupportedModelError
from anyblock.modeling.skeleton import model_class
from anyblock.modeling.weights import WeightMap, quiet_loading

from anyblock_new_family.introspection.tiny import TinyConfig, text_part, tiny_candidates

MAX_PARAMETERS: Final = 20_000_000


class TinyModel:
    """A tiny model with random weights in float32.

    Attributes:
        tiny: how its configuration is made.
        config: the configuration.
        model: the model, in eval mode.
        names: `{checkpoint name: module name}`.
        ids: the token ids it is run on, `[2, 12]`.
        decodes: whether it runs with a cache.
    """

    def __init__(self, tiny: TinyConfig) -> None:
        self.tiny = tiny
        self.config = tiny.make()
        self.config.dtype = torch.float32
        count = sum(tensor.numel() for tensor in shapes_model(self.config).parameters())
        if count > MAX_PARAMETERS:
            raise UnsupportedModelError(f"the smallest model found has {count:,} parameters", expected="a tiny model")
        self.ids = torch.randint(
            0, min(100, int(self.text.vocab_size)), (2, 12), generator=torch.Generator().manual_seed(0)
        )
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            self.model = model_class(self.config)._from_config(copy.deepcopy(self.config), dtype=torch.float32).eval()
            self._randomise()
            self.model(input_ids=self.ids, use_cache=False).logits  # noqa: B018 - a model that cannot run is of no use
            self.decodes = self._decodes()
        self.tensors = self._stored()
        target = WeightMap(self.model)
        self.names = {name: target.target(name)[0] for name in self.tensors}

    @property
    def text(self) -> Any:
        """The language model's part of the configuration."""
        return text_part(self.config)

    def _decodes(self) -> bool:
        try:
            self.model(input_ids=self.ids, use_cache=True)
        except Exception:  # noqa: BLE001 - a model may fail in any way with a cache
            return False
        return True

    def _stored(self) -> dict[str, torch.Tensor]:
        from safetensors.torch import load_file

        with tempfile.TemporaryDirectory(prefix="anyblock-tiny-") as folder, quiet_loading():
            self.model.save_pretrained(folder)
            files = sorted(Path(folder).glob("*.safetensors"))
            return {name: tensor.clone() for file in files for name, tensor in load_file(file).items()}

    @torch.no_grad()
    def _randomise(self) -> None:
        for name, tensor in self.model.state_dict(keep_vars=True).items():
            if tensor.is_floating_point():
                generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
                noise = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(noise / tensor.shape[-1] ** 0.5 if tensor.dim() > 1 else tensor + noise * 0.3)


def shapes_model(config: Any) -> Any:
    """Return the model of a configuration on the meta device."""
    own = copy.deepcopy(config)
    with torch.device("meta"):
        return model_class(own)._from_config(own)


def tiny_model(config_class: type[Any], given: Any = None) -> TinyModel:
    """Return the first tiny model of a configuration class that can be built and run, with a cache if any does.

    Args:
        config_class: the class.
        given: see `tiny_candidates`.

    Raises:
        UnsupportedModelError: none can; the message has the first reason.
    """
    first: Exception | None = None
    found: TinyModel | None = None
    for tiny in tiny_candidates(config_class, given):
        try:
            model = TinyModel(tiny)
        except Exception as error:  # noqa: BLE001 - a model class may refuse a configuration in any way
            first = first or error
            continue
        if model.decodes:
            return model
        found = found or model
    if found is not None:
        return found
    raise UnsupportedModelError(
        f"no tiny {config_class.__name__} can be built and run: {type(first).__name__}: {first}",
        expected="a language model that runs on token ids alone",
        hint="write the adapter by hand: core/docs/write-an-adapter.md",
    )
