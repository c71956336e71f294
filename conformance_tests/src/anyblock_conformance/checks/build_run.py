"""Build: does the model that AnyBlock builds run as the stock model does?"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.modeling.load import load_model
from anyblock.modeling.skeleton import model_class
from anyblock.modeling.weights import quiet_loading

from anyblock_conformance.check import check
from anyblock_conformance.expect import close, equal, same
from anyblock_conformance.rounding import tolerance_of
from anyblock_conformance.subject import RESIDENT, Subject, logits

_TOLERANCE = 1e-5
"""Of a tiny model, which runs in float32 by the very same steps."""


@check("build.buffers", capability="build", depends_on=["convert.bit-for-bit"])
def check_buffers(subject: Subject) -> None:
    """After construction on the meta device, rotary frequencies and other unstored buffers are those of the stock model.

    Why: no checkpoint holds them. Wrong frequencies give a model that speaks, only worse and worse with the position.

    How to fix: keep the base's `init_rotary_embedding`, which lets transformers compute them. They stay in float32 when
    the model is in bfloat16.
    """
    for dtype in (torch.float32, torch.bfloat16) if subject.scope == "tiny" else (subject.stock.dtype,):
        model = load_model(subject.converted.path, family=subject.family, dtype=dtype)
        found, expected = _unstored(model), _unstored(_in_dtype(subject, dtype))
        equal(sorted(found), sorted(expected), f"the unstored buffers in {dtype}")
        for name, buffer in expected.items():
            same(found[name], buffer, f"the buffer {name} of a model in {dtype}")


@check("build.call-order", capability="build", depends_on=["structure.module-paths", "structure.decoder-layers"])
def check_call_order(subject: Subject) -> None:
    """In one forward pass the named modules run in this order: embedding, layer 0, layer 1 … final norm, head.

    Why: hidden states are taken after the embedding, between layers and after the final norm. With another module, or
    another order of layers, scores are computed on something else.

    How to fix: give the path of the norm that runs after the last layer, and layer paths by index.
    """
    model, family = subject.stock, subject.family
    paths = [family.input_embedding_name(), *(family.layer_block_name(i) for i in range(subject.num_layers))]
    paths += [path for path in (family.final_norm_name(), family.output_embedding_name()) if path]
    ran: list[str] = []
    with ExitStack() as hooks:
        for path in paths:
            hook = model.get_submodule(path).register_forward_hook(lambda *_, path=path: ran.append(path))
            hooks.callback(hook.remove)
        logits(model, subject.ids)
    norm, last = family.final_norm_name(), family.layer_block_name(subject.num_layers - 1)
    if norm and last in ran:  # the module may norm the embeddings as well (NanoChat)
        end = ran.index(last)
        ran = [path for path in ran[:end] if path != norm] + ran[end:]
    equal(ran, paths, "the order in which modules ran")


@check("build.layerwise", capability="build", depends_on=["convert.bit-for-bit", "build.buffers", "build.call-order"])
@torch.no_grad()
def check_layerwise(subject: Subject) -> None:
    """Run layer by layer, the model gives the stock model's logits, also when only one layer is in memory at a time.

    Why: calibration, scoring and evaluation run this way, with layers that are loaded when they are needed.

    How to fix: `init_rotary_embedding` is called when the layers have no weights yet: it may compute buffers, but neither
    move nor read parameters.
    """
    stock = subject.stock
    expected = logits(stock, subject.ids)
    runs: dict[str, int | None]
    if subject.scope == "tiny":
        runs, allowed = {"all layers": None, "one layer at a time": 1}, _TOLERANCE
    else:
        runs, allowed = {f"{RESIDENT} layers at a time": RESIDENT}, tolerance_of(stock, subject.ids)
    del stock
    for name, resident in runs.items():
        engine = LayerwiseModel(subject.converted, subject.family, max_resident=resident)
        batch = engine.prepare(subject.ids)
        hidden = batch.hidden
        for index in range(engine.num_layers):
            hidden = engine.run(index, hidden, batch)
        close(engine.logits(hidden, batch), expected, f"layer-wise logits ({name})", tolerance=allowed)
        last = engine.logits(hidden, batch, keep=slice(-2, None))
        close(last, expected[:, -2:], f"layer-wise logits of the last two tokens ({name})", tolerance=allowed)


def _unstored(model: Any) -> dict[str, torch.Tensor]:
    stored = set(model.state_dict())
    # An empty buffer holds no number: the no-op of a norm keeps one for its type.
    return {name: own for name, own in model.named_buffers() if name not in stored and own.numel()}


def _in_dtype(subject: Subject, dtype: torch.dtype) -> Any:
    if dtype == subject.stock.dtype:
        return subject.stock
    with quiet_loading():
        return model_class(subject.config).from_pretrained(subject.source, dtype=dtype, local_files_only=True).eval()
