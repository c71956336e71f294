"""A command: which halves of a child are gone."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from anyblock.contract.blocks import block_configs_from_json
from anyblock.errors import UsageError


def main(arguments: list[str]) -> int:
    """Run `anyblock removed CHILD`; return the exit code, which is 1 where `--any` is given and nothing is gone."""
    parser = argparse.ArgumentParser("anyblock removed", description="List the halves that a child lacks.")
    parser.add_argument("child", type=Path)
    parser.add_argument("--any", action="store_true", help="exit with 1 when nothing is gone")
    given = parser.parse_args(arguments)
    file = given.child / "config.json"
    if not file.is_file():
        raise UsageError(f"{given.child} has no config.json", expected="the folder of a child")
    blocks = block_configs_from_json(json.loads(file.read_text(encoding="utf-8")).get("block_configs", []))
    gone = [
        f"layer {layer}: {half}"
        for layer, block in enumerate(blocks)
        for half in ("attention", "ffn")
        if block.half(half).no_op
    ]
    sys.stdout.write("".join(f"{line}\n" for line in gone) or "nothing is gone\n")
    return int(given.any and not gone)
