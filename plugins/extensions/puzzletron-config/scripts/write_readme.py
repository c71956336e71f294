"""Print the README: every key, name and constraint that the dialect knows, from the tables that translate them.

python plugins/extensions/puzzletron-config/scripts/write_readme.py > plugins/extensions/puzzletron-config/README.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Final

from anyblock_puzzletron_config.aliases import (
    REFERENCE_FAMILIES,
    REFERENCE_HOOKS,
    REFERENCE_LAYER_DESCRIPTORS,
    REFERENCE_MIXINS,
)
from anyblock_puzzletron_config.keys import GUIDE_KEYS
from anyblock_puzzletron_config.tables import CONSTRAINTS, INIT_MODES, METHODS, OBJECTIVES, REFUSED_MODES

_PAGE: Final = """\
# anyblock-puzzletron-config

<!-- Written by scripts/write_readme.py: change that script or the tables of the package. -->

The pruning files of the AnyModel guide and the main files of the reference system (NVIDIA ModelOpt's Puzzletron) load
as they are once this distribution is installed next to [AnyBlock](../../../core/README.md):

```console
$ python -m pip install anyblock anyblock-llama anyblock-puzzletron-config
$ anyblock compress main.yaml
```

They can hold keys of [AnyBlock's own configuration](../../../core/docs/configuration.md) as well. Two different values for the
same thing are an error, unless one of them is an option or an override, which wins.

## Interpolation

`${data.path}` stands for the value of another key, named from the top, in the guide's files and in AnyBlock's own. The
environment cannot be read. `${get_object:NAME}` stands for a registered class.

## Composition

A list `defaults` names further files below the folder of the main file, as in Hydra: `name`, `group: name`, `/from/the/top`,
`name@package`, `optional name`, and `_self_` for the file's own content, which comes last, and so wins, where it is not listed.
What is not there is looked for below the three folders above, since a main file may lie deep in the folder that Hydra would be
given. A path that leads out of its folder (`../..`) is refused.

## Names

`_target_`, `hook_class` and `${get_object:NAME}` take the name of a registered class: the short name, the dotted path
of the class, or the path by which the reference knows it. These are

PATHS

Anything else is refused. `KIND` in the next table is the key below `pruning` that belongs to the mixin:

MIXINS

HOOKS

A file without `hook_class` is understood by its label `activation_hooks_kwargs.method`:

METHODS

Families whose `descriptor` is not their `model_type`: FAMILIES.

## Keys of the guide

KEYS

The following are accepted without an effect, and named when the file is loaded. A key of these sections that is in
neither table is an error.

IGNORED

## Initialisation

MODES

## Constraints

A number is the most allowed, and for `target_throughput` the least; `[low, high]` bounds both sides. It is an error to
give `human_constraints` and `mip_constraints` together, or several sets of `mip_constraints`: one run has one budget,
and `anyblock search RUN` looks for others.

CONSTRAINTS

## What is different

- The reference removes and leaves it at that; here the weights that remain are re-fitted, unless
  `pruning.repair.method` is `none`.
- The modes of initialisation that are not in the table are refused where they would decide something: REFUSED.
- Objectives are refused apart from OBJECTIVES.

The distribution adds one name to the hook `config_dialects`. It needs `anyblock>=0.2,<1`.
"""


def main() -> None:
    """Print the page."""
    sys.stdout.write(page())


def page() -> str:
    """Return the page's text."""
    paths = (
        "pruning.TYPE_pruning_mixin.MIXIN",
        "models.FAMILY.FAMILY_model_descriptor.LAYER_DESCRIPTOR",
        "utils.activation_hooks.hooks.HOOK",
        "modelopt.torch.nas.plugins.megatron_hooks.base_hooks.HOOK",
        "modelopt.torch.prune.importance_hooks.HOOK",
    )
    descriptors = {kind: f"`FAMILY{end}`" for end, kind in REFERENCE_LAYER_DESCRIPTORS.items()}
    mixins = [(f"`{name}`", descriptors[kind], f"`{_key(kind)}`") for name, kind in REFERENCE_MIXINS.items()]
    hooks = [(f"`{name}`", f"`{(*others, name)[0]}`") for name, others in REFERENCE_HOOKS.items()]
    keys: list[tuple[str, ...]] = []
    ignored: dict[str, list[str]] = {}
    for key, entry in GUIDE_KEYS.items():
        if entry.has_no_effect:
            ignored.setdefault(entry.doc, []).append(f"`{key}`")
        else:
            keys.append((f"`{key}`", f"`{entry.ours}`" if entry.ours else "", entry.doc))
    parts = {
        "PATHS": "\n".join(f"- `{path}`" for path in paths)
        + "\n\nthe first two also behind `modelopt.torch.puzzletron.` or `modelopt.torch._compress.`.",
        "MIXINS": _table(("mixin", "layer descriptor", "KIND"), mixins),
        "HOOKS": _table(("hook of the reference", "hook here"), hooks),
        "METHODS": _table(
            ("method", "hook", "KIND"), [(f"`{a}`", f"`{b}`", f"`{_key(c)}`") for a, (b, c) in METHODS.items()]
        ),
        "FAMILIES": ", ".join(f"`{theirs}` is `{ours}`" for theirs, ours in REFERENCE_FAMILIES.items()),
        "KEYS": _table(("key of the guide", "key here", "notes"), keys),
        "IGNORED": _table(("keys", "because"), [(", ".join(names), reason) for reason, names in ignored.items()]),
        "CONSTRAINTS": _table(
            ("constraint", "budget", "unit"), [(f"`{a}`", f"`{b}`", unit) for a, (b, unit) in CONSTRAINTS.items()]
        ),
        "MODES": _table(
            ("key of the guide", "KIND", "its value, and KIND's `init` here"),
            [
                (f"`{key}`", f"`{_key(kind)}`", ", ".join(f"`{theirs}`: `{ours}`" for theirs, ours in modes.items()))
                for kind, (key, modes) in INIT_MODES.items()
            ],
        ),
        "REFUSED": "; ".join(f"`{mode}`, {why}" for mode, why in REFUSED_MODES.items()),
        "OBJECTIVES": ", ".join(f"`{theirs}` (`{ours}`)" for theirs, ours in OBJECTIVES.items()),
    }
    text = _PAGE
    for name, part in parts.items():
        text = text.replace(name, part, 1)
    return text


def _key(kind: str) -> str:
    return "ffn" if kind == "ffn_intermediate" else kind


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join([_row(head), "|" + "---|" * len(head), *map(_row, rows)])


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    main()
