"""Sorting tensor names into groups by a family's predicates."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from anyblock.checkpoint.groups import group_file
from anyblock.checkpoint.index import some
from anyblock.checkpoint.json_io import shown
from anyblock.errors import CheckpointError


def classify(names: Iterable[str], predicates: Mapping[str, re.Pattern[str]], *, family: str) -> dict[str, list[str]]:
    """Return `{group: [name, ...]}`, groups in the order of the predicates, names in the given order.

    Args:
        names: the tensors.
        predicates: `{group: pattern}`; a pattern has to match a whole name.
        family: names the family in an error.

    Raises:
        CheckpointError: a tensor that no pattern or more than one pattern matches (all such tensors are counted, the
            first of them named), or a group whose name cannot be a file's name.
    """
    for group in predicates:
        group_file(group)
    groups: dict[str, list[str]] = {group: [] for group in predicates}
    unmatched: list[str] = []
    several: dict[str, list[str]] = {}
    for name in names:
        matching = [group for group, pattern in predicates.items() if pattern.fullmatch(name)]
        if len(matching) == 1:
            groups[matching[0]].append(name)
        elif matching:
            several[name] = matching
        else:
            unmatched.append(name)
    if unmatched or several:
        raise CheckpointError(
            "\n".join(_faults(unmatched, several)),
            expected=f"every tensor in exactly one group of the {family} family",
            hint="the model may be of another family, or the adapter's layer_name_predicates lacks these names",
        )
    return {group: members for group, members in groups.items() if members}


def _faults(unmatched: list[str], several: Mapping[str, list[str]]) -> Iterable[str]:
    if unmatched:
        yield f"no group takes {some(unmatched)}"
    if several:
        yield f"more than one group takes {some(list(several))}"
        for name, groups in list(several.items())[:10]:
            yield f"  {shown(name)} is in {', '.join(groups[:4])}"
