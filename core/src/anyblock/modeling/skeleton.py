"""Models on the meta device: right shapes, no weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from anyblock.checkpoint.config import read_config
from anyblock.contract.blocks import BlockConfig
from anyblock.errors import (
    AnyBlockError,
    CheckpointError,
    ConfigError,
    ExecutionError,
    UnsupportedModelError,
    is_out_of_memory,
)
from anyblock.family import register_classes
from anyblock.modeling.heterogeneous import heterogeneous

if TYPE_CHECKING:
    from anyblock.family import ModelFamily


def load_hf_config(path: Path | str) -> Any:
    """Return the Hugging Face configuration of a local checkpoint.

    Raises:
        ConfigError: `config.json` is missing or transformers refuses it.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    refusals = (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError, StrictDataclassError)
    register_classes(read_config(path)["model_type"])
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    except refusals as error:
        raise ConfigError(
            f"{Path(path) / 'config.json'}: transformers cannot read it: {error}",
            expected="the configuration of a model that this transformers version knows",
        ) from error
    stated = _stated_class(config)
    if stated is not None and not stated.can_generate():
        raise UnsupportedModelError(
            f"{Path(path) / 'config.json'}: architectures names {stated.__name__}, which does not predict the next token",
            expected="a causal language model",
            hint="use the model that it was made from, or correct that entry if the weights are a language model's",
        )
    # An exported child says twice in what its layers differ. We go by its block configs, and transformers would refuse
    # to read the values of the other from the model's configuration, where stock code does.
    text = config.get_text_config(decoder=True)
    if text.is_heterogeneous and not differs_by_itself(text):
        text.per_layer_config = None
    return config


def _stated_class(config: Any) -> Any:
    """Return the class of transformers that `architectures` names; None where that is none, or one without a head."""
    import transformers

    headless = transformers.MODEL_MAPPING.get(type(config), None)  # what embedding models are saved as
    for name in getattr(config, "architectures", None) or []:
        found = getattr(transformers, name, None) if isinstance(name, str) else None
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel) and found is not headless:
            return found
    return None


def differs_by_itself(config: Any) -> bool:
    """Return whether layers of an unpruned model with this configuration differ in more than its block configs say (Gemma 4).

    Its class then gives a `per_layer_config` to a configuration that states none.
    """
    stated = {name: value for name, value in config.to_dict().items() if name != "per_layer_config"}
    try:
        return bool(type(config).from_dict(stated).is_heterogeneous)
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError):
        return False


def model_class(config: Any) -> type[Any]:
    """Return the transformers class with a language-model head for `config`.

    Raises:
        UnsupportedModelError: transformers has none.
    """
    import transformers

    if (stated := _stated_class(config)) is not None:
        return stated  # type: ignore[no-any-return]
    for auto in (transformers.AutoModelForCausalLM, transformers.AutoModelForImageTextToText):
        found = auto._model_mapping.get(type(config), None)
        found = found[0] if isinstance(found, tuple) else found
        # Of some multimodal configurations, transformers names the class that takes their text part alone.
        text = (
            any(isinstance(getattr(config, key, None), found.config_class) for key in config.sub_configs)
            if found
            else False
        )
        if found is not None and not text:
            return found  # type: ignore[no-any-return]
    raise UnsupportedModelError(
        f"transformers has no language model for {type(config).__name__} (architectures: {config.architectures})",
        expected="a causal language model",
    )


def build_skeleton(
    family: ModelFamily | None, config: Any, block_configs: Sequence[BlockConfig], *, dtype: torch.dtype | None = None
) -> Any:
    """Build the heterogeneous model on the meta device.

    Args:
        family: whose hooks shape the layers; None builds the stock model.
        config: the model's Hugging Face config; not changed.
        block_configs: one entry per layer.
        dtype: the parameters' dtype; None takes the config's.

    Returns:
        A `PreTrainedModel` in eval mode whose parameters and buffers are all on the meta device.

    Raises:
        CheckpointError: transformers cannot build a model of these values.
    """
    import copy

    own = copy.deepcopy(config)
    where = getattr(config, "name_or_path", "") or f"the {config.model_type} model"
    layers = nullcontext() if family is None else heterogeneous(family, block_configs)
    # Some constructors draw their initial values themselves (DiffLlama), also on the meta device.
    drawing = torch.random.fork_rng(devices=[])
    with drawing, refusing(where), layers, torch.device("meta"), _Uninitialised():
        model = model_class(own)._from_config(own, **({} if dtype is None else {"dtype": dtype}))
    keep_precision(model)
    return model.eval()


class _Uninitialised(TorchFunctionMode):
    """Leave the initial values of `torch.nn.init` out: on the meta device they take a third of a model's construction."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter and stored buffer."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@contextmanager
def refusing(where: Path | str) -> Iterator[None]:
    """Turn what transformers and torch raise for values that make no model into an error that names the checkpoint.

    Raises:
        CheckpointError: the block raised such an error.
        ExecutionError: there is too little memory.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    refusals = (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    )
    try:
        yield
    except AnyBlockError:
        raise
    except (*refusals, SafetensorError, StrictDataclassError) as error:
        text = str(error).strip()
        if is_out_of_memory(error):
            raise ExecutionError(
                f"{where} does not fit into memory: {text[:400]}",
                hint="free memory, or look at the sizes in its config.json",
            ) from error
        raise CheckpointError(
            f"{where} cannot be loaded: {type(error).__name__}: {text[:400]}{' ...' if len(text) > 400 else ''}",
            expected="a config and weights of which transformers can build a model",
        ) from error


def keep_precision(model: Any) -> None:
    """Give tensors that the model wants in float32, whatever its own dtype, that dtype, as `from_pretrained` does."""
    for pattern, wide in model._get_dtype_plan(model.dtype).items():
        matches = re.compile(pattern.replace("*", ".*")).search
        for module_name, module in model.named_modules():
            for kind in (module._parameters, module._buffers):
                for name, tensor in kind.items():
                    if tensor is not None and tensor.is_floating_point() and matches(f"{module_name}.{name}"):
                        widened = tensor.to(wide)
                        kind[name] = nn.Parameter(widened) if kind is module._parameters else widened


def require_materialised(model: nn.Module, where: str) -> None:
    """Refuse a model that still has tensors on the meta device.

    Raises:
        CheckpointError: names the missing tensors.
    """
    named = [*model.named_parameters(), *model.named_buffers()]
    missing = sorted(name for name, tensor in named if tensor.is_meta)
    if missing:
        raise CheckpointError(
            f"{where}: {len(missing)} tensors are missing: {', '.join(missing[:8])}{' ...' if len(missing) > 8 else ''}",
            expected="every tensor that the config asks for",
            hint="the checkpoint is incomplete or its block_configs do not belong to it; write it again",
        )
