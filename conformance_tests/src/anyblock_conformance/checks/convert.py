"""Convert: does a checkpoint become subblock files, cheaply, and come back as it was?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
from anyblock.checkpoint.source_checkpoint import SourceCheckpoint
from anyblock.conversion.convert import convert_with
from safetensors import safe_open

from anyblock_conformance.check import check
from anyblock_conformance.expect import NotApplicableError, equal, identity, nothing, same, that
from anyblock_conformance.large import write_large
from anyblock_conformance.memory import peak_growth
from anyblock_conformance.subject import Subject

ALLOWED_GROWTH: Final = 24 << 20


@check(
    "convert.bit-for-bit",
    capability="convert",
    depends_on=["structure.tensor-groups", "structure.weight-names", "structure.block-configs"],
)
def check_bit_for_bit(subject: Subject) -> None:
    """A converted checkpoint holds the same bits, and loads into the same model.

    Why: the teacher that everything is measured against has to be the model that was given, not one close to it.

    How to fix: do not compute in `dequantize_tensor` what only has another name; compute the rest exactly as the model's
    own loading code does, in its dtype. `init_rotary_embedding` must not touch loaded tensors.
    """
    converted = subject.converted
    stored = {name for names in converted.groups.values() for name in names}
    group, tensors = "", dict[str, torch.Tensor]()
    for name, tensor in source_tensors(subject.source):
        new = subject.family.convert_weight_name(name)
        if new in stored and subject.names[new].sizes is not None:
            if group != (group := converted.group(new)):
                tensors = converted.load(group)
            same(tensors[new], tensor, f"the tensor {name}")
    nothing(sorted(set(subject.names) ^ stored), "tensors that are in the source or in the result only")
    equal(converted.block_configs, subject.blocks, "block_configs of the converted checkpoint")
    # One model at a time: two, and the file from which the second is read, are three times the weights.
    expected = {name: identity(tensor) for name, tensor in subject.stock.state_dict().items()}
    loaded = {name: identity(tensor) for name, tensor in subject.teacher.state_dict().items()}
    equal(sorted(loaded), sorted(expected), "the loaded model's tensors")
    for name, found in loaded.items():
        equal(found, expected[name], f"{name} of the loaded model")


@check("convert.flat-memory", capability="convert", needs="tiny", depends_on=["convert.bit-for-bit"])
def check_flat_memory(subject: Subject) -> None:
    """Converting takes no more memory when the checkpoint is larger.

    Why: models that are larger than the memory of the machine are converted as well. The suite converts a sparse
    checkpoint of the tiny model with a vocabulary of some hundred thousand words, and watches the process.

    How to fix: let `dequantize` name only tensors that have another storage than the model's own; all others are copied
    from file to file without being loaded.
    """
    source, target = subject.place("large"), subject.place("large-converted")
    size = write_large(subject, source)
    growth = peak_growth(lambda: convert_with(subject.family, source, target))
    if growth is None:
        raise NotApplicableError("this system does not tell how much memory a process takes")
    that(
        growth <= ALLOWED_GROWTH,
        f"memory grew by {growth / 2**20:.0f} MiB while {size / 2**20:.0f} MiB were converted, allowed {ALLOWED_GROWTH >> 20} MiB",
    )


def source_tensors(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every tensor of a local checkpoint with its name."""
    for file, header in SourceCheckpoint.open(path).headers.items():
        with safe_open(file, framework="pt") as handle:
            for name in header.tensors:
                yield name, handle.get_tensor(name)
