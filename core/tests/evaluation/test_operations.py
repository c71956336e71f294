"""A child with fewer operations does in fact run fewer; nothing here depends on time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch
from anyblock.modeling.load import load_model
from anyblock_tests.children import child_without
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

HIDDEN, WIDTH, HEADS, KV_HEADS = 32, 48, 4, 2


class Operations(TorchDispatchMode):
    """Counts every operation that reaches the kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def operations(model: torch.nn.Module, ids: torch.Tensor) -> Counter[str]:
    with torch.no_grad(), Operations() as counted:
        model(ids, use_cache=False)
    return counted.seen


def flops(model: torch.nn.Module, ids: torch.Tensor) -> int:
    model.set_attn_implementation("eager")  # torch does not count the fused attention of the CPU
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(ids, use_cache=False)
    return counter.get_total_flops()


def layer_flops(tokens: int) -> tuple[int, int]:
    """Return the matrix products of one attention's projections and of one ffn, from their shapes."""
    head = HIDDEN // HEADS
    projections = HIDDEN * (HEADS + 2 * KV_HEADS) * head + HEADS * head * HIDDEN
    return 2 * tokens * projections, 2 * tokens * 3 * HIDDEN * WIDTH


def test_what_is_removed_is_not_computed(teacher_dir: Path, tmp_path: Path, ids: torch.Tensor) -> None:
    teacher = load_model(teacher_dir)
    child = load_model(child_without(teacher_dir, tmp_path / "child", attention={0}, ffn={0, 2}))
    attention, ffn = layer_flops(ids.numel())
    saved = flops(teacher, ids) - flops(child, ids)
    scores = saved - attention - 2 * ffn  # what is left is the one attention's scores and their use
    heads = 4 * ids.shape[0] * HEADS * ids.shape[1] ** 2 * (HIDDEN // HEADS)
    assert scores == heads


def test_a_removed_half_computes_no_norm_and_calls_no_kernel_of_the_half(
    teacher_dir: Path, tmp_path: Path, ids: torch.Tensor
) -> None:
    """Of a whole layer without halves nothing remains, not even an addition to the residual stream."""
    teacher = operations(load_model(teacher_dir), ids)
    child = operations(
        load_model(child_without(teacher_dir, tmp_path / "child", attention={0, 1, 2}, ffn={0, 1, 2})), ids
    )
    assert teacher["rsqrt"] == 7  # two norms a layer and the final one
    assert child["rsqrt"] == 1
    with Operations() as angles:
        load_model(teacher_dir).model.rotary_emb(torch.zeros(1, 1), torch.arange(ids.shape[1])[None])
    assert not {"silu", "softmax"} & set(child)
    assert child["bmm"] == angles.seen["bmm"]  # older versions of transformers turn positions into angles by a product
    assert child["mm"] + child["addmm"] == 1  # the head
    assert teacher["zeros_like"] == child["zeros_like"] == 0
    assert teacher["add"] - child["add"] >= 3 * 2
