"""Write `core/docs/run.schema.json`: the JSON Schema of a run's YAML, without any extension's sections.

python core/scripts/write_run_schema.py
"""

from __future__ import annotations

from pathlib import Path

from anyblock.config.schema import RunConfig
from anyblock_terminal.schema import schema_text

if __name__ == "__main__":
    place = Path(__file__).parents[1] / "docs" / "run.schema.json"
    place.write_text(schema_text(RunConfig), encoding="utf-8")
