"""Print `core/docs/configuration.md`: every key with its default and meaning, from the models that check them.

python core/scripts/write_configuration_docs.py > core/docs/configuration.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from functools import reduce
from typing import Any, Final

from anyblock.config import load_config
from anyblock.config.effort import EFFORTS, paths_of
from anyblock.config.schema import RunConfig
from anyblock.contract.config_tree import dotted
from anyblock.costs.counted import COUNTED
from pydantic import BaseModel
from pydantic.fields import FieldInfo

_HEAD: Final = """\
# Configuration

<!-- Written by core/scripts/write_configuration_docs.py: change that script or the models in anyblock.config. -->

A run of `anyblock compress` is described by one YAML file, by options on the command line, or by both. It needs a
`model`, an `output`, a calibration text and a budget; everything else has a default:

```yaml
model: Qwen/Qwen3-0.6B
output: qwen3-small
data:
  path: calibration.txt
search:
  budget: {params: 0.8x, memory: 1GiB}
```

`anyblock compress run.yaml` uses this file. `anyblock compress MODEL OUT --budget params=0.8x --data FILE` needs none.

## How a file is read

- **Overrides** come after the other arguments. `pruning.ffn.sizes=[0.25,0.5]` sets a key; the value is YAML, and a
  mapping is merged into the one that is there. `~data.evaluation` deletes a key, so that its default applies.
  Overrides win over options, and options over the file.
- **Interpolation.** `${data.path}` stands for the value of another key, named from the top, where
  `anyblock-puzzletron-config` is installed, and is refused where it is not. The environment cannot be read, and there is
  no resolver but `${get_object:NAME}`, which stands for a registered class.
- **Faults** are reported together, each with its line and the nearest valid name. Unknown and duplicate keys, wrong
  types, tags, and files that expand to more than they should are refused. Types are strict: `"512"` is not a number.
- **Names of classes** are looked up among what AnyBlock and the installed plugins register, by short name or by dotted
  path. Nothing is imported because a file names it.

## Budgets

A budget bounds one cost of the whole child, with everything outside the layers. All of them are kept together.

COSTS

`anyblock list costs` shows those of extensions too: `latency` and `throughput`, measured on the run's device, come with
[anyblock-latency](latency.md). `bytes` is known where storage types are searched, as with
[anyblock-gguf](export.md#types-that-the-search-chooses).

| form | meaning |
|---|---|
| `0.8x`, `80%` | a share of what the teacher uses |
| `2.5GiB`, `800MB`, `7B`, `12ms`, `0.5s`, `500tok/s` | a number with a unit; without one, in the unit above |
| `40..100` | at least, and at most |
| `>=40`, `<=100` | one of the two; without a sign, a value is the most allowed, and for `throughput` the least |

In a list the sign stands between name and value: `["params<=0.8x", "kv_heads>=40"]`. Two budgets on one cost that
differ on the same side, or that leave nothing between them, are an error.

## Effort

`effort`, or `--effort` on the command line, sets the defaults of the keys on which time and quality depend most. `balanced` is what
stands in the tables below. What the file, an option or an override says of a key wins over it. `thorough` trains the child with
[anyblock-distillation](../../plugins/extensions/distillation/README.md), which has to be installed.

EFFORTS

## Other tools' files

`anyblock list dialects` shows which other vocabularies are read. Those of the AnyModel guide and of NVIDIA ModelOpt
come with [anyblock-puzzletron-config](../../plugins/extensions/puzzletron-config/README.md).

## Keys
"""


def main() -> None:
    """Print the page."""
    sys.stdout.write(page())


def page() -> str:
    """Return the page's text."""
    return "\n".join([_HEAD.replace("COSTS", _costs()).replace("EFFORTS", _efforts()), *_sections()])


def _costs() -> str:
    rows = [(f"`{name}`", cost.unit, cost.summary) for name, cost in COUNTED.items()]
    return _table(("cost", "unit", "meaning"), rows)


def _efforts() -> str:
    """Return the table of what each effort sets; `balanced` shows the defaults."""
    columns = {name: load_config(None, [f"effort={name}"], {"model": "m", "output": "o"}) for name in EFFORTS}
    rows = []
    for path in dict.fromkeys(path for values in EFFORTS.values() for path in paths_of(values)):
        # An extension's section is there where something in it is set.
        values = [
            reduce(lambda section, key: getattr(section, key, None), map(str, path), config)
            for config in columns.values()
        ]
        if not any(isinstance(value, BaseModel) for value in values):
            cells = ("" if value is None else f"`{json.dumps(value)}`" for value in values)
            rows.append((f"`{dotted(path)}`", *cells))
    return _table(("key", *EFFORTS), rows)


def _sections() -> Iterator[str]:
    """Yield one table a section, the whole run first."""
    waiting: list[tuple[str, type[BaseModel]]] = [("", RunConfig)]
    shown: dict[type[BaseModel], str] = {}
    while waiting:
        prefix, section = waiting.pop(0)
        rows = []
        for name, field in section.model_fields.items():
            inner = _section(field.annotation)
            text = field.description or ""
            if inner is None:
                rows.append((f"`{prefix}{name}`", _default(field), text))
                continue
            is_mapping = isinstance(field.get_default(call_default_factory=True), dict)
            place = f"{prefix}{name}" + (".KIND" if is_mapping else "")
            if inner not in shown:
                shown[inner] = place
                waiting.append((f"{place}.", inner))
            default = "`null`" if not field.is_required() and field.default is None else ""
            rows.append((f"`{prefix}{name}`", default, f"{text} Keys: see `{shown[inner]}`."))
        title = f"`{prefix[:-1]}`" if prefix else "The run"
        doc = (section.__doc__ or "").partition("\n")[0]
        yield f"### {title}\n\n{doc}\n\n{_table(('key', 'default', 'meaning'), rows)}\n"


def _section(annotation: Any) -> type[BaseModel] | None:
    for found in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(found, type) and issubclass(found, BaseModel):
            return found
    return None


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return f"`{json.dumps(field.get_default(call_default_factory=True))}`"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join([_row(head), "|" + "---|" * len(head), *map(_row, rows)])


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    main()
