"""How a checkpoint's weights are quantised, and the error for one that nothing here can compute with."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from anyblock.checkpoint.config import MAX_CONFIG
from anyblock.checkpoint.files import inside, read_bounded
from anyblock.checkpoint.json_io import parse_object
from anyblock.errors import CheckpointError

_FILES: Final = {"hf_quant_config.json": "modelopt", "quantize_config.json": "gptq", "quant_config.json": "awq"}
_NAMES: Final = {  # how names end that stand next to quantised weights, or in their place
    "gptq": r"\.g_idx",
    "awq or gptq": r"\.(qweight|qzeros)",
    "bitsandbytes": r"\.(absmax|quant_map|SCB)",
    "nvfp4": r"\.(weight_scale_2|weight_global_scale)",
    "compressed-tensors": r"\.weight_(packed|shape|zero_point)",
    "fp8 or int8": r"\.weight_scale(_inv)?",
    "mxfp4": r"_blocks",
    "eetq": r"\.weight_scales",
    "hqq": r"\.W_q",
    "quanto": r"\.weight\._(data|scale)",
    "torchao": r"[._:]weight[._:]+(qdata|tensor_impl|int_data)",
}
_FORMATS: Final = {"dense", "naive-quantized", "float-quantized", "int-quantized", "pack-quantized", "mixed-precision"}


def quantisation(config: Any, names: Iterable[str] = (), where: str = "") -> str | None:
    """Return the method by which weights are quantised (`awq`, `fp8` ...); None of plain ones.

    A configuration usually says it, or else a file in the checkpoint's folder (`where`), or the names of the tensors.
    """
    found = getattr(config, "quantization_config", None) or {}
    settings = found if isinstance(found, Mapping) else vars(found)
    for name, method in _FILES.items():
        if not settings and where and os.path.lexists(Path(where) / name):
            own = parse_object(read_bounded(inside(Path(where), name), MAX_CONFIG), f"{where}/{name}")
            inner = own.get("quantization")
            settings = {"quant_method": method, **own, **(inner if isinstance(inner, dict) else {})}
    if settings:
        method = settings.get("quant_method") or "its quantization_config does not say how"
        return ", ".join(str(part) for part in (method, settings.get("quant_algo"), *not_covered(settings)) if part)
    listed = list(names)
    for method, end in _NAMES.items():
        if any(re.search(f"(?:{end})$", name) for name in listed):
            return f"{method}, by the names of its tensors"
    return None


def not_covered(settings: Mapping[str, Any]) -> list[str]:
    """Return, by their own names, what of compressed-tensors' settings keeps weights from being made plain."""
    parts = [settings, settings.get("sparsity_config"), *(settings.get("config_groups") or {}).values()]
    formats = {part["format"] for part in parts if isinstance(part, Mapping) and part.get("format")}
    others = {name for name in ("kv_cache_scheme", "transform_config") if settings.get(name)}
    return sorted(others | formats - _FORMATS) if settings.get("quant_method") == "compressed-tensors" else []


def quantised(where: str, method: str, fault: str) -> CheckpointError:
    """Return the error for a checkpoint that nothing here can compute with."""
    return CheckpointError(
        f"{where} holds quantised weights ({method}): {fault}",
        expected="weights in float32, bfloat16 or float16",
        hint="use the model that was quantised; its card usually names it. Of some methods transformers makes plain weights, which "
        "can be saved: `model.dequantize()`, or CompressedTensorsConfig(dequantize=True) and the like",
    )
