"""What a name in a configuration may refer to: hooks, mixins and layer descriptors that core or a plugin registered.

A name is looked up, never imported. It is the short class name, the dotted path of a registered class, or a name by which an
installed dialect knows the same thing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from anyblock.contract.config_dialect import ConfigDialect, Role
from anyblock.contract.trust import trusting
from anyblock.errors import ConfigError, nearest
from anyblock.extensions import installed_extensions

if TYPE_CHECKING:
    from anyblock.extensions import Extensions
    from anyblock.family import ModelFamily

_Known = Mapping[str, tuple[type[Any], str]]
"""`{name: (class, what the name stands for)}`."""
_NAME: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")


_ROLES: Final[Mapping[Role, str]] = {
    "hook": "importance hook",
    "mixin": "pruning mixin",
    "layer_descriptor": "layer descriptor",
}


@dataclass(frozen=True)
class NameRegistry:
    """The names that are valid for one family.

    Attributes:
        hooks: `{name: importance hook class}`.
        mixins: `{kind: pruning mixin}`, objects or classes.
        family: the `model_type`; None when it is not known, and another family's layer descriptor is then not seen.
        source: where hooks and mixins come from; None where they were given.
        dialects: the dialects whose names are known too.
    """

    hooks: Mapping[str, type[Any]] = field(default_factory=dict)
    mixins: Mapping[str, Any] = field(default_factory=dict)
    family: str | None = None
    source: Extensions | None = None
    dialects: Sequence[ConfigDialect] = ()

    @classmethod
    def for_family(cls, family: ModelFamily | None) -> Self:
        """Return the names of core and of one family with the installed extensions; of core alone without a family.

        Importing them imports torch.
        """
        if family is not None:
            return cls(family.importance_hooks(), family.pruning_mixins(), family.model_type, family, dialects(family))
        from anyblock.pruning.layouts import dense_mixins, sparse_mixins

        extensions = installed_extensions()
        mixins = {**dense_mixins(), **sparse_mixins()}
        return cls(extensions.importance_hooks(), mixins, source=extensions, dialects=dialects(extensions))

    def hook(self, name: str) -> str:
        """Return the registered name of an importance hook.

        Raises:
            ConfigError: nothing of that name is registered.
        """
        known = {key: (found, key) for key, found in self.hooks.items()}
        return self._find(name, "hook", known)

    def mixin(self, name: str) -> str:
        """Return the kind of a pruning mixin.

        Raises:
            ConfigError: nothing of that name is registered.
        """
        known = {kind: (_class(mixin), kind) for kind, mixin in self.mixins.items()}
        return self._find(name, "mixin", known)

    def layer_descriptor(self, name: str) -> str:
        """Return a kind of pruning that this layer descriptor serves.

        Raises:
            ConfigError: nothing of that name is registered, or it belongs to another family.
        """
        known = {
            kind: (type(mixin.layer_descriptor), kind)
            for kind, mixin in self.mixins.items()
            if hasattr(mixin, "layer_descriptor") and not isinstance(mixin, type)
        }
        return self._find(name, "layer_descriptor", known)

    def any(self, name: str) -> str:
        """Return what `${get_object:name}` stands for: a hook's registered name, or a kind.

        Raises:
            ConfigError: nothing of that name is registered.
        """
        if any(dialect.ignores(name) for dialect in self.dialects):
            return name
        for lookup in (self.mixin, self.layer_descriptor):
            try:
                return lookup(name)
            except ConfigError:
                continue
        return self.hook(name)

    def _find(self, name: str, role: Role, known: _Known) -> str:
        if _NAME.fullmatch(name):
            for key, (cls, answer) in known.items():
                if name in (key, cls.__name__) or _is_path_of(name, cls):
                    return answer
            for dialect in self.dialects:
                found = dialect.alias(role, name, self)
                if found is not None:
                    return found
        short = sorted({cls.__name__ for cls, _ in known.values()})
        raise ConfigError(
            f"{name!r} is not a registered {_ROLES[role]}",
            expected=", ".join(short) or "one that a plugin registers, and none does",
            hint=nearest(name.rpartition(".")[2], short)
            or "names are looked up among what core and installed plugins register; nothing is imported",
        )


def registry_for(data: Mapping[str, Any]) -> NameRegistry:
    """Return the names that are valid for the family that the configuration names in a dialect, or else for the model's own.

    Args:
        data: a configuration before validation.

    Raises:
        AnyBlockError: no installed adapter serves the family.
    """
    from anyblock.family import get_family

    named = next(filter(None, (dialect.family_of(data) for dialect in dialects(installed_extensions()))), None)
    with trusting(data.get("trust_remote_code") is True):
        named = named or local_model_type(data.get("model"))
    return NameRegistry.for_family(get_family(named) if isinstance(named, str) else None)


def dialects(extensions: Extensions) -> list[ConfigDialect]:
    """Return an object of every installed dialect, sorted by name."""
    return [dialect() for dialect in extensions.named("dialects").values()]


def local_model_type(*models: Any) -> str | None:
    """Return the `model_type` of the first of these that is a local checkpoint."""
    from anyblock.checkpoint.config import read_config

    for model in models:
        if isinstance(model, str) and (Path(model) / "config.json").is_file():
            return str(read_config(Path(model)).get("model_type") or "") or None
    return None


def _class(mixin: Any) -> type[Any]:
    return mixin if isinstance(mixin, type) else type(mixin)


def _is_path_of(name: str, cls: type[Any]) -> bool:
    """Whether `name` is the class's dotted path, or that of a package above its module that offers it."""
    module, _, last = name.rpartition(".")
    return bool(module) and last == cls.__qualname__ and f"{cls.__module__}.".startswith(f"{module}.")
