"""What each hook has to return, checked where it is called: a wrong result is reported, never computed with."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from anyblock.contract.blocks import BlockConfig
from anyblock.contract.capabilities import CAPABILITIES, Capability, Support
from anyblock.errors import nearest
from anyblock.plugins.relay import BadResultError

_T = TypeVar("_T")
_GROUP: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_PATH: Final = re.compile(r"[A-Za-z_]\w*(\.\w+)*")


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def instance(wanted: type[_T], phrase: str) -> Callable[[Any], _T]:
    """Return a check that a result is of this class."""

    def check(result: Any) -> _T:
        if not isinstance(result, wanted):
            raise BadResultError(f"returned {_kind(result)}", phrase)
        return result

    return check


def anything(result: Any) -> Any:
    """Check that there is a result at all."""
    if result is None:
        raise BadResultError("returned None", "a result")
    return result


def done(result: Any) -> bool:
    """Check that a hook that acts on a module says that it did."""
    if result is not True:
        raise BadResultError(f"returned {result!r}", "True when it is done (end the hook with `return True`)")
    return True


def module_path(result: Any) -> str:
    """Check a dotted module path such as `model.layers.3`."""
    if not isinstance(result, str) or not _PATH.fullmatch(result):
        raise BadResultError(f"returned {result!r}", "a module path such as 'model.layers.3'")
    return result


def module_path_or_none(result: Any) -> str:
    """Check a module path that may be empty: there is no such module."""
    return "" if result == "" else module_path(result)


def predicates(result: Any) -> dict[str, re.Pattern[str]]:
    """Check `{group: compiled regex}`; groups become file names, so they are letters, digits, `_`, `.` and `-`."""
    found = _mapping(result, "a dict of compiled regular expressions by group name")
    for group, pattern in found.items():
        if not isinstance(group, str) or not _GROUP.fullmatch(group):
            raise BadResultError(f"returned the group name {group!r}", "letters, digits, '_', '.' and '-'")
        if not isinstance(pattern, re.Pattern) or not isinstance(pattern.pattern, str):
            raise BadResultError(f"returned {_kind(pattern)} for the group {group!r}", "a re.compile(...) of a str")
    return found


def block_configs(count: int | None) -> Callable[[Any], list[BlockConfig]]:
    """Return a check for a list of `count` block configs; None leaves the length open."""

    def check(result: Any) -> list[BlockConfig]:
        """Refuse what is not a list of one BlockConfig per layer."""
        if not isinstance(result, list):
            raise BadResultError(f"returned {_kind(result)}", "a list of BlockConfig, one a layer")
        for index, block in enumerate(result):
            if not isinstance(block, BlockConfig):
                raise BadResultError(f"returned {_kind(block)} for layer {index}", "a BlockConfig")
        if count is not None and len(result) != count:
            raise BadResultError(f"returned {len(result)} blocks", f"{count}, the config's num_hidden_layers")
        return result

    return check


def overrides(result: Any) -> dict[str, Any]:
    """Check `{config attribute: value}`."""
    found = _mapping(result, "a dict of config attributes")
    for name in found:
        if not isinstance(name, str) or not name.isidentifier():
            raise BadResultError(f"returned the attribute name {name!r}", "an attribute of the Hugging Face config")
    return found


def dequantized(names: Sequence[str]) -> Callable[[Any], dict[str, tuple[str, ...]]]:
    """Return a check for `{result: (source, ...)}` whose sources are all among `names`."""
    known = frozenset(names)

    def check(result: Any) -> dict[str, tuple[str, ...]]:
        """Refuse what is not a plan of tensors by their sources."""
        if result is None:
            return {}
        plan = {}
        for target, sources in _mapping(result, "None, or a dict of source tensors by result").items():
            if not isinstance(sources, Sequence) or isinstance(sources, str) or not sources:
                raise BadResultError(
                    f"gave {sources!r} as the sources of {target!r}", "a non-empty tuple of tensor names"
                )
            for source in sources:
                if source not in known:
                    raise BadResultError(
                        f"gave the source {source!r} of {target!r}, which the checkpoint does not have",
                        f"names from the checkpoint {nearest(str(source), known)}".strip(),
                    )
            plan[target] = tuple(sources)
        return plan

    return check


def layer_classes(result: Any) -> tuple[type[Any], ...]:
    """Check the decoder layer class or classes; always a tuple afterwards."""
    found = result if isinstance(result, tuple) else (result,)
    torch = sys.modules.get("torch")
    for cls in found:
        if not isinstance(cls, type) or (torch is not None and not issubclass(cls, torch.nn.Module)):
            raise BadResultError(f"returned {cls!r}", "a class derived from torch.nn.Module, or a tuple of them")
    if not found:
        raise BadResultError("returned an empty tuple", "at least one decoder layer class")
    return found


def auto_classes(result: Any) -> dict[str, type[Any]]:
    """Check `{name of an Auto class: class}`; an empty dict where there is no result."""
    found = mapping_of(lambda value: isinstance(value, type), "a dict of classes by Auto class")(result or {})
    if found and "AutoConfig" not in found:
        raise BadResultError("returned no AutoConfig", "the configuration class under that name")
    return found


def tensor(result: Any) -> Any:
    """Check that a result is a tensor."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(result, torch.Tensor):
        raise BadResultError(f"returned {_kind(result)}", "a torch.Tensor")
    return result


def capabilities(result: Any) -> dict[str, Capability]:
    """Check the declared capabilities; those that are not named come back as unknown."""
    found = _mapping({} if result is None else result, "a dict of Capability by name")
    for name, capability in found.items():
        if name not in CAPABILITIES:
            expected = f"names of CAPABILITIES; {nearest(str(name), CAPABILITIES)}"
            raise BadResultError(f"declares the unknown capability {name!r}", expected.rstrip("; "))
        if not isinstance(capability, Capability):
            raise BadResultError(f"returned {_kind(capability)} for {name!r}", "a Capability")
        if capability.support is Support.PARTIAL and not capability.note:
            raise BadResultError(f"declares {name!r} as partial without a note", "a note that states the condition")
    return {name: found.get(name, Capability(Support.UNKNOWN)) for name in CAPABILITIES}


def mapping_of(accepts: Callable[[object], bool], phrase: str) -> Callable[[Any], dict[str, Any]]:
    """Return a check for `{name: value}` in which `accepts` holds for every value."""

    def check(result: Any) -> dict[str, Any]:
        """Refuse anything else than a mapping of names to such values."""
        found = _named(result, phrase)
        for name, value in found.items():
            if not accepts(value):
                shown = repr(value) if isinstance(value, type | str) else _kind(value)
                raise BadResultError(f"returned {shown} for {name!r}", phrase)
        return found

    return check


def _mapping(result: Any, phrase: str) -> dict[Any, Any]:
    if not isinstance(result, Mapping):
        raise BadResultError(f"returned {_kind(result)}", phrase)
    return dict(result)


def _named(result: Any, phrase: str) -> dict[str, Any]:
    found = _mapping(result, phrase)
    for name in found:
        if not isinstance(name, str) or not name:
            raise BadResultError(f"returned the name {name!r}", "non-empty strings as names")
    return found
