"""Where and in which dtype models compute."""

from __future__ import annotations

import pytest
import torch
from anyblock.errors import UsageError
from anyblock.modeling.device import compute_dtype, resolve_device, resolve_devices, stored_dtype
from transformers import LlamaConfig

CPU = torch.device("cpu")


def test_a_named_dtype_is_taken_and_auto_avoids_slow_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compute_dtype("bfloat16", torch.float32, CPU) is torch.bfloat16
    assert compute_dtype("auto", torch.float32, CPU) is torch.float32
    for supported, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda supported=supported: supported)
        assert compute_dtype("auto", torch.bfloat16, CPU) is expected
    assert compute_dtype("auto", torch.bfloat16, torch.device("cuda")) is torch.bfloat16
    with pytest.raises(UsageError, match="unknown dtype 'half32'"):
        compute_dtype("half32", torch.float32, CPU)


def test_the_stored_dtype_is_what_the_config_states() -> None:
    assert stored_dtype(LlamaConfig(dtype="bfloat16")) is torch.bfloat16
    assert stored_dtype(LlamaConfig()) is torch.float32


def test_a_device_that_is_not_there_is_refused() -> None:
    assert resolve_device("cpu") == CPU
    with pytest.raises(UsageError, match="no device 'cuda:9'"):
        resolve_device("cuda:9")


def test_several_devices_are_distinct_ones_of_one_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_devices("cpu") == (CPU,)
    with pytest.raises(UsageError, match="no device 'cuda:8'"):
        resolve_devices("cuda:8,cuda:9")
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda: torch.device("cuda"))
    for count, expected in ((1, ["cuda"]), (3, ["cuda:0", "cuda:1", "cuda:2"])):
        monkeypatch.setattr("torch.accelerator.device_count", lambda count=count: count)
        assert list(map(str, resolve_devices("auto"))) == expected
    assert list(map(str, resolve_devices("cuda:2,cuda:0"))) == ["cuda:2", "cuda:0"]
    for wrong in ("cuda:0,cuda:0", "cuda,cuda:1", "cpu,cuda:1"):
        with pytest.raises(UsageError, match=r"distinct devices|one kind"):
            resolve_devices(wrong)
