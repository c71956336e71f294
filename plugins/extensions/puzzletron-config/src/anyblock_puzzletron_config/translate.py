"""The guide's files, key by key: taken over, translated, named as having no effect, or refused."""

from __future__ import annotations

import re
from typing import Any, Final

from anyblock.contract.config_dialect import DialectTools
from anyblock.contract.config_tree import KeyPath, Tree, dotted, split_key
from anyblock.errors import ConfigError, nearest

from anyblock_puzzletron_config.aliases import is_ignored_reference
from anyblock_puzzletron_config.keys import GUIDE_KEYS
from anyblock_puzzletron_config.pruning import translate_pruning
from anyblock_puzzletron_config.tables import FIXED, PRUNING_ONLY, SWITCHED_OFF
from anyblock_puzzletron_config.translation import Translation
from anyblock_puzzletron_config.values import CONVERSIONS, budgets, check_family, lengths, scenario, tokens
from anyblock_puzzletron_config.walk import below_pruning, leaves, texts

_REFERENCE: Final = re.compile(r"\$\{\s*get_object\s*:([^}]*)\}?")
_MIXED: Final = ("pruning", "scoring")
"""Sections in which the guide's keys and AnyBlock's own can both stand."""


def has_guide_keys(tree: Tree, tools: DialectTools) -> bool:
    """Whether any key or section of the guide's files is there."""
    sections = {key.partition(".")[0] for key in GUIDE_KEYS} - tools.schema.model_fields.keys()
    return bool((PRUNING_ONLY | sections) & tree.data.keys()) or any(key for _, key in leaves(tree.data))


def translate(tree: Tree, tools: DialectTools) -> Tree:
    """Return a tree that has only AnyBlock's own keys, with every interpolation replaced.

    Args:
        tree: a configuration with keys of the guide, and perhaps own ones.
        tools: what core lends.

    Raises:
        ConfigError: one message for every key that is unknown, asks for what AnyBlock does not do, or contradicts
            another one.
    """
    guide = Translation(below_pruning(tree, tools.schema), tools)
    for path, text in texts(guide.tree.data):
        for reference in _REFERENCE.findall(text):
            guide.attempt(_refuse_unregistered, guide, path, reference.strip())
    found = list(leaves(guide.tree.data))
    for path, key in found:
        if not key:
            guide.attempt(_keep, guide, path)
    for key in dict.fromkeys(key for _, key in found if key):
        guide.attempt(_translate, guide, key)
    for step in (check_family, tokens, lengths, scenario, budgets, translate_pruning):
        guide.attempt(step, guide)
    if guide.faults:
        raise tools.gathered(list(dict.fromkeys(guide.faults)))
    _report(guide)
    return guide.result


def _refuse_unregistered(guide: Translation, path: KeyPath, name: str) -> None:
    """Refuse a reference to an object that is not registered, also in a key that has no effect."""
    if not is_ignored_reference(name):
        guide.found(path, name, guide.names().any)


def _keep(guide: Translation, path: KeyPath) -> None:
    """Take over an own key; refuse one that neither vocabulary knows."""
    section = path[0]
    known = [key for key in GUIDE_KEYS if key.startswith(f"{section}.")]
    own = _own_keys(guide, str(section)) if section in _MIXED else frozenset()
    if known and len(path) == 1 and section not in _MIXED:
        raise ConfigError(f"{guide.tree.place(path)} is {guide.raw(str(section))!r}", expected="a mapping")
    if known and len(path) > 1 and path[1] not in own:
        names = {*known, *(f"{section}.{name}" for name in own)}
        raise ConfigError(f"{guide.tree.place(path)}: unknown key", hint=nearest(dotted(path), names))
    guide.keep(path)


def _own_keys(guide: Translation, section: str) -> frozenset[str]:
    annotation: Any = guide.tools.schema.model_fields[section].annotation
    return frozenset(annotation.model_fields)


def _translate(guide: Translation, key: str) -> None:
    """Translate one key that says something by itself."""
    value: Any = guide.raw(key)
    if value is None:
        return
    if key in FIXED:
        wanted, hint = FIXED[key]
        if guide.get(key) != wanted:
            raise ConfigError(f"{guide.place(key)} is {guide.get(key)!r}", expected=repr(wanted), hint=hint)
    elif key in SWITCHED_OFF:
        if value is not False and guide.get(f"{key}.enabled") is not False:
            raise ConfigError(f"{guide.place(key)} is switched on", expected="enabled: false", hint=SWITCHED_OFF[key])
    elif key in CONVERSIONS:
        guide.put(split_key(GUIDE_KEYS[key].ours), CONVERSIONS[key](guide, key), key)
        if key == "puzzle_dir":
            guide.default(("output",), f"{guide.get(key)}/child")


def _report(guide: Translation) -> None:
    """Say which keys had no effect, one line a reason."""
    reasons: dict[str, dict[str, dict[str, None]]] = {}
    for _, key in leaves(guide.tree.data):
        if key and GUIDE_KEYS[key].has_no_effect and guide.raw(key) is not None:
            section, _, name = key.rpartition(".")
            reasons.setdefault(GUIDE_KEYS[key].doc, {}).setdefault(section, {})[name] = None
    for reason, sections in reasons.items():
        keys = (
            f"{section}.{{{', '.join(names)}}}" if section else ", ".join(names) for section, names in sections.items()
        )
        guide.tools.note(f"no effect, since {reason}: {', '.join(keys)}")
