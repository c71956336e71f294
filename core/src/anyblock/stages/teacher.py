"""Stage `teacher`: the model as a subblock checkpoint in the run folder, unless it is one already."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from anyblock.checkpoint.atomic import write_json_atomic
from anyblock.checkpoint.subblocks import SubblockCheckpoint, is_subblock_checkpoint
from anyblock.config.schema import RunConfig
from anyblock.conversion.convert import convert_model
from anyblock.progress import Progress
from anyblock.run.model_source import Source
from anyblock.run.run_folder import RunFolder, digest, file_digest, fingerprint_of, read_json

STAGE: Final = "teacher"
CONVERTED = "teacher"
"""The checkpoint's name in the run folder."""


def run_teacher(config: RunConfig, run: RunFolder, source: Source, progress: Progress) -> SubblockCheckpoint:
    """Return the teacher as a subblock checkpoint, converting it first if need be."""
    if is_subblock_checkpoint(source.path):
        return SubblockCheckpoint.open(source.path)
    family = source.family
    stage = run.stage(STAGE, {"source": _content(source.path), "adapter": f"{family.distribution} {family.version}"})
    output = run.path / CONVERTED
    if not stage.skipped or fingerprint_of(output) != read_json(run.result(STAGE, "teacher.json"))["fingerprint"]:
        with stage.run() as folder:
            convert_model(source.path, output, source.model_type, overwrite=True, progress=progress)
            write_json_atomic(folder / "teacher.json", {"fingerprint": SubblockCheckpoint.open(output).fingerprint()})
    return SubblockCheckpoint.open(output)


def _content(source: Path) -> str:
    return digest({path.name: file_digest(path) for path in sorted(source.iterdir()) if path.is_file()})
