"""The guide's `pruning` section: which kind of pruning it asks for, with which hook and sizes."""

from __future__ import annotations

from typing import Any, Final

from anyblock.contract.config_tree import KeyPath
from anyblock.errors import ConfigError, nearest

from anyblock_puzzletron_config.tables import INIT_MODES, METHODS, REFUSED_MODES, SIZE_LISTS
from anyblock_puzzletron_config.translation import Translation

_HOOK: Final = "pruning.activation_hooks_kwargs"
_MIXIN: Final = "pruning.pruning_mixin._target_"
_DESCRIPTOR: Final = "pruning.pruning_mixin.layer_descriptor"
_NO_OPTIONS: Final = frozenset(
    {"method", "target_layer", "clear_gpu_memory", "layer_input_descriptors_path", "validation_full_iters"}
)
_METRICS: Final = {"expert_ranks": None, "expert_ranks_mse": "mse", "expert_ranks_cosine": "cosine"}


def translate_pruning(guide: Translation) -> None:
    """Translate what the guide's `pruning` section says about the kind of pruning.

    Raises:
        ConfigError: a name is not registered, or the section contradicts itself.
    """
    kind = _kind(guide)
    lists = [name for name in SIZE_LISTS if guide.get(f"pruning.{name}") is not None]
    own = [name for name in lists if kind in SIZE_LISTS[name]]
    for name in lists:
        if own and name not in own:  # the reference's files keep such lists, and its mixins do not read them
            guide.tools.note(f"no effect, since the mixin is {kind}: {guide.place(f'pruning.{name}')}")
        else:
            _sizes(guide, name, kind)
    kind = kind or (SIZE_LISTS[lists[0]][0] if len(lists) == 1 else None)
    kinds = [kind] if kind else [SIZE_LISTS[name][0] for name in lists]
    for each in kinds:
        _mode(guide, each)
    if kinds and "ffn_intermediate" not in kinds:
        guide.default(("pruning", "ffn", "sizes"), [])
    _hook(guide, kind)


def _kind(guide: Translation) -> str | None:
    """Return the kind that the mixin, or else the hook's label, stands for."""
    kind = guide.name(_MIXIN, lambda name: guide.names().mixin(name))
    described = guide.name(f"{_DESCRIPTOR}._target_", lambda name: guide.names().layer_descriptor(name))
    if described is not None:
        if kind is not None and _family_of_kinds(kind) != _family_of_kinds(described):
            raise ConfigError(
                f"{guide.place(f'{_DESCRIPTOR}._target_')} describes layers for {described}, and the mixin is {kind}",
                expected="a layer descriptor that belongs to the mixin",
            )
        kind = kind or described
    label = guide.text(f"{_HOOK}.method")
    return kind or (METHODS[label][1] if label and label in METHODS else None)


def _family_of_kinds(kind: str) -> str:
    return "heads" if kind in ("kv_heads", "query_groups") else kind


def _section(guide: Translation, kind: str) -> KeyPath:
    return guide.tools.kind_paths.get(kind, ("pruning", kind))


def _sizes(guide: Translation, name: str, kind: str | None) -> None:
    own = kind if kind in SIZE_LISTS[name] or kind not in guide.tools.kind_paths else None
    if kind is not None and own is None:
        raise ConfigError(
            f"{guide.place(f'pruning.{name}')}: sizes for {SIZE_LISTS[name][0]}, and the mixin is {kind}",
            expected="the list of sizes that belongs to the mixin",
        )
    target = "heads_per_group" if name == "n_heads_in_group_list" else "sizes"
    guide.put((*_section(guide, own or SIZE_LISTS[name][0]), target), guide.get(f"pruning.{name}"), f"pruning.{name}")


def _mode(guide: Translation, kind: str) -> None:
    if kind not in INIT_MODES:
        return
    key, modes = INIT_MODES[kind]
    mode = guide.text(f"pruning.{key}")
    if mode is None:
        return
    if mode not in modes:
        raise ConfigError(
            f"{guide.place(f'pruning.{key}')} is {mode}, which is not an initialisation of {kind} here",
            expected=" or ".join(sorted(modes)),
            hint=REFUSED_MODES.get(mode) or nearest(mode, modes),
        )
    guide.put((*_section(guide, kind), "init"), modes[mode], f"pruning.{key}")


def _hook(guide: Translation, kind: str | None) -> None:
    hook = guide.name("pruning.hook_class", lambda name: guide.names().hook(name))
    label = guide.text(f"{_HOOK}.method")
    if hook is None and label:
        if label not in METHODS:
            raise ConfigError(
                f"{guide.place(f'{_HOOK}.method')} is {label!r}, and there is no hook_class",
                expected=", ".join(METHODS),
                hint=nearest(label, METHODS),
            )
        hook = METHODS[label][0]
    target_key = f"{_HOOK}.target_layer" if guide.get(f"{_HOOK}.target_layer") else f"{_DESCRIPTOR}.target_name"
    target = guide.text(target_key)
    given = guide.get(_HOOK)
    if not isinstance(given, dict | None):
        raise ConfigError(f"{guide.place(_HOOK)} is {given!r}", expected="a mapping of options")
    options = {name: value for name, value in (given or {}).items() if name not in _NO_OPTIONS and value is not None}
    score = guide.text("pruning.mlp_init_config_yaml.expert_scores_key")
    if score and kind == "experts_removal":
        if score not in _METRICS:
            raise ConfigError(
                f"{guide.place('pruning.mlp_init_config_yaml.expert_scores_key')} is {score!r}",
                expected=", ".join(_METRICS),
            )
        if _METRICS[score]:
            options["metric"] = _METRICS[score]
    if not (hook or target or options):
        return
    if kind is None:
        raise ConfigError(
            f"{guide.place('pruning.hook_class' if hook else _HOOK)}: a hook for several kinds of pruning",
            expected="pruning_mixin._target_, which says for which kind",
        )
    section = _section(guide, kind)
    if hook:
        guide.put((*section, "hook"), hook, "pruning.hook_class")
        guide.default((*section, "extra_hooks"), [])
    if target:
        guide.put((*section, "target"), target, target_key)
    for name, value in options.items():
        guide.put((*section, "hook_options", name), _plain(value), f"{_HOOK}.{name}")


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, dict | list) else value
