"""What a run leaves on disk, in a form that can be compared."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

TIMES = {"seconds", "since", "tokens_per_second", "teacher_tokens_per_second", "load_seconds", "peak_memory"}
"""Keys of JSON that say how long something took or how much memory: they differ from run to run."""


def tree(folder: Path) -> dict[str, str]:
    """The content of every file below a folder, and its empty folders; times and peaks in JSON are left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        # These are full of times.
        if path.is_file() and path.name not in ("report.md", "report.html", "summary.json", "events.jsonl"):
            found[name] = content(path)
        elif path.is_file():
            found[name] = "some"
        elif path.is_dir() and not any(path.iterdir()):
            found[name] = "empty"
    return found


def content(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix == ".json":
        data = json.dumps(timeless(json.loads(data)), sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()


def timeless(data: Any) -> Any:
    """JSON data without what differs from run to run."""
    if isinstance(data, dict):
        named = {key: timeless(value) for key, value in data.items() if key not in TIMES}
        # A finished stage states the hashes of its files, some of which hold times.
        return {
            key: sorted(value) if key == "files" and isinstance(value, dict) else value for key, value in named.items()
        }
    return [timeless(value) for value in data] if isinstance(data, list) else data


STAGES = (
    *("00-candidates", "01-data", "02-teacher", "04-importance", "06-scores"),
    *("07-search", "08-refine", "09-repair", "10-child", "12-evaluation"),
)
"""The stages that the harness' runs have."""


def finished_stages(run: Path) -> dict[str, dict[str, str]]:
    """The files of every stage that says that it is finished."""
    found = {}
    for done in sorted(run.glob("stages/*/stage.json")):
        files = json.loads(done.read_text())["files"]
        for name, hashed in files.items():
            actual = hashlib.blake2b((done.parent / name).read_bytes(), digest_size=16).hexdigest()
            assert actual == hashed, f"{done} says that {name} is complete, and it is not"
        found[done.parent.name] = {name: content(done.parent / name) for name in files}
    return found
