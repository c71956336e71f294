"""How much each input of a linear map counts when its weights are rounded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyblock.contract.linear_inputs import input_tokens
from anyblock.contract.services import services
from anyblock.errors import UsageError

if TYPE_CHECKING:
    import torch
    from anyblock.contract.export_format import Child

    from anyblock_gguf.architecture import Architecture
    from anyblock_gguf.settings import GgufSettings

_WINDOW: Final = 512


def mean_squared_inputs(child: Child, architecture: Architecture, settings: GgufSettings) -> dict[str, torch.Tensor]:
    """Return by the name in the file the mean squared input of each linear map, [columns], over a text.

    It is what llama.cpp calls an importance matrix. Experts whose matrices are stacked in one parameter have no linear
    map of their own, and are rounded without weights.

    Args:
        child: the child, which is run in float32.
        architecture: its own; knows the names.
        settings: `importance` is the text file.

    Raises:
        UsageError: the file cannot be read or has too little text, or the child has no tokenizer.
    """
    import torch
    from torch import nn

    try:
        text = Path(settings.importance or "").expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"importance={settings.importance}: {error}", expected="a text file in UTF-8") from error
    loaded = services().load_model(child.path, dtype="float32")
    if loaded.tokenizer is None:
        raise UsageError("the child has no tokenizer to read the text of importance with")
    window = min(_WINDOW, architecture.config.max_position_embeddings)
    ids = loaded.tokenizer(text, return_tensors="pt", verbose=False).input_ids[0, : settings.importance_tokens]
    if len(ids) < window:
        raise UsageError(f"importance={settings.importance} has {len(ids)} tokens", expected=f"at least {window}")
    sums: dict[str, torch.Tensor] = {}

    def counting(name: str) -> Any:
        """Return a hook that adds up the squares of a linear map's inputs."""

        def count(_: nn.Module, args: Any, kwargs: Any) -> None:
            squares = input_tokens(args, kwargs).float().square().sum(0).cpu()
            sums[name] = sums[name] + squares if name in sums else squares

        return count

    for module_name, module in loaded.model.named_modules():
        if isinstance(module, nn.Linear):
            try:
                name = architecture.renamed(f"{module_name}.weight", module_name)
            except (KeyError, ValueError):  # llama.cpp has no such matrix, or not this layer
                continue
            module.register_forward_pre_hook(counting(name), with_kwargs=True)
    device = next(loaded.model.parameters()).device
    used = len(ids) // window * window
    with torch.no_grad():
        for part in ids[:used].reshape(-1, window):
            loaded.model(part[None].to(device), use_cache=False)
    return {name: total / used for name, total in sums.items()}
