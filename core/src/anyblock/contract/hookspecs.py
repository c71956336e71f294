"""The contract of a model family: pluggy hookspecs of the project `anyblock`.

A family's distribution registers a *descriptor*, an object whose methods are marked with `hookimpl`. Most descriptors derive
from a base in `anyblock.descriptors` and override little. An extension (entry-point group `anyblock.extensions`) is an object
with some of the same hooks; it can add hooks and mixins, or wrap a family's hook with `hookimpl(wrapper=True)`.

Everything in `anyblock.contract` is the surface that semantic versioning covers; "Since" says in which version a hook came, and
hooks without it are there since 0.1.

An implementation may ask for fewer arguments than its spec lists, never for others. Everywhere below, `config` is the model's
Hugging Face configuration, or, before a model is built, a read-only view of its `config.json` with the same attributes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import pluggy

if TYPE_CHECKING:
    import torch
    from torch import nn

    from anyblock.contract.adaptation import Adaptation
    from anyblock.contract.blocks import BlockConfig
    from anyblock.contract.cache_spec import CacheSpec
    from anyblock.contract.candidate_source import CandidateSource
    from anyblock.contract.capabilities import Capability
    from anyblock.contract.config_dialect import ConfigDialect
    from anyblock.contract.cost import Cost
    from anyblock.contract.evaluation import Evaluation
    from anyblock.contract.executor import Executor
    from anyblock.contract.export_format import ExportFormat
    from anyblock.contract.importance_hook import ImportanceHook
    from anyblock.contract.pruning_mixin import PruningMixIn
    from anyblock.contract.report_section import ReportSection
    from anyblock.contract.residual_pruning import ResidualPruning
    from anyblock.contract.scoring_metric import ScoringMetric
    from anyblock.contract.storage_type import StorageType
    from anyblock.contract.text_reader import TextReader

PROJECT: Final = "anyblock"
FAMILIES_GROUP: Final = "anyblock.families"
"""Entry-point group of family descriptors; an entry point's name is the `model_type` it serves."""
EXTENSIONS_GROUP: Final = "anyblock.extensions"
"""Entry-point group of distributions that add something by name without being a family."""
COMMANDS_GROUP: Final = "anyblock.commands"
"""Entry-point group of commands: a typer function, or a `main(arguments) -> exit code`; the entry point's name is the command's."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class FamilySpec:
    """Every hook that core calls. Structural hooks return one result; collecting hooks are merged over all plugins."""

    # -- structure of a checkpoint ---------------------------------------------------------------------------------

    @hookspec(firstresult=True)
    def layer_name_predicates(self, num_layers: int, config: Any) -> dict[str, re.Pattern[str]]:  # type: ignore[empty-body]
        """Say which group every checkpoint tensor belongs to.

        Returns:
            `{group: pattern}`; a tensor belongs to the group whose pattern matches its whole name. The groups `embeddings`
            and `lm_head` (final norm and head) and `block_{i}_attention`, `block_{i}_ffn` for every layer that has that
            half; any further group (`vision_encoding`, `block_{i}_other` for what belongs to neither half) is kept as it is.
            The groups `multi_token_prediction` and `rotary_buffers` are for what transformers leaves out of the model: they
            are kept as well, and neither loaded nor counted.
            Every tensor must match exactly one pattern. A tied head need not be in the checkpoint.
        """

    @hookspec(firstresult=True)
    def create_block_configs(self, config: Any) -> list[BlockConfig]:  # type: ignore[empty-body]
        """Return the architecture of every block of the unpruned model, one entry per layer."""

    @hookspec(firstresult=True)
    def block_config_to_layer_overrides(self, block_config: BlockConfig) -> Mapping[str, Any]:  # type: ignore[empty-body]
        """Return `{HF config attribute: value}` that this layer's constructor must see; canonical names, no aliases.

        A half that is a no-op contributes nothing. An attribute that equals the model's own may be given or left out.
        """

    @hookspec(firstresult=True)
    def convert_weight_name(self, name: str) -> str | None:
        """Return the checkpoint name under which the tensor `name` is to be stored; None or the same name keeps it."""

    @hookspec(firstresult=True)
    def dequantize(self, names: Sequence[str], config: Any) -> Mapping[str, Sequence[str]] | None:
        """Name the tensors that `convert` has to compute, because the checkpoint stores them in another form.

        Args:
            names: every tensor name in the checkpoint.

        Returns:
            `{name in the subblock checkpoint: (source tensor, ...)}` for each computed tensor, or None when there are
            none. The sources are then not stored themselves; `dequantize_tensor` computes each result.
        """

    @hookspec(firstresult=True)
    def dequantize_tensor(self, name: str, sources: Mapping[str, torch.Tensor], config: Any) -> torch.Tensor:  # type: ignore[empty-body]
        """Compute the tensor `name` from its `sources` as `dequantize` listed them.

        It must work on the meta device too, where only the result's shape and dtype are asked for.
        """

    @hookspec(firstresult=True)
    def language_model_config(self, config: Any) -> Any:
        """Return the text part of a multimodal configuration; `config` itself for a plain language model."""

    @hookspec(firstresult=True)
    def standard_config(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return a `config.json` with another tool's `block_configs` as one with AnyBlock's, of a model type that has an adapter.

        Asked of extensions alone, None where it is not theirs. From then on `AutoConfig` must read the folder so. Since 0.2.
        """

    # -- structure of a model ---------------------------------------------------------------------------------------

    @hookspec(firstresult=True)
    def model_classes(self) -> Mapping[str, type[Any]]:  # type: ignore[empty-body]
        """Return `{name of an Auto class: class}` of a model that transformers lacks, `AutoConfig` among them.

        They are registered with transformers in this process when the family is asked for or a checkpoint of its model type is
        opened, never by an import. Since 0.2.
        """

    @hookspec(firstresult=True)
    def decoder_layer_cls(self) -> type[nn.Module] | tuple[type[nn.Module], ...]:  # type: ignore[empty-body]
        """Return the decoder layer class, or the classes, whose constructors receive a layer's own configuration."""

    @hookspec(firstresult=True)
    def input_embedding_name(self) -> str:  # type: ignore[empty-body]
        """Return the module path of the input embedding, for instance `model.embed_tokens`."""

    @hookspec(firstresult=True)
    def output_embedding_name(self) -> str:  # type: ignore[empty-body]
        """Return the module path of the output head, for instance `lm_head`."""

    @hookspec(firstresult=True)
    def final_norm_name(self) -> str:  # type: ignore[empty-body]
        """Return the module path of the norm after the last layer, for instance `model.norm`; `""` where there is none."""

    @hookspec(firstresult=True)
    def layer_block_name(self, index: int) -> str:  # type: ignore[empty-body]
        """Return the module path of layer `index`, for instance `model.layers.3`."""

    @hookspec(firstresult=True)
    def init_rotary_embedding(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> bool:  # type: ignore[empty-body]
        """Rebuild what a model built on the meta device cannot take from its checkpoint: rotary and other such buffers.

        Returns:
            True, also when there was nothing to do.
        """

    @hookspec(firstresult=True)
    def attn_no_op_post_init(self, decoder_layer: nn.Module) -> bool:  # type: ignore[empty-body]
        """Turn the attention half of a built layer into a no-op that keeps no parameters.

        The half's output must equal the residual path, and a key-value cache must still advance
        (`anyblock.modeling.no_op.NoOpAttention` does both for the common layout). Returns True.
        """

    @hookspec(firstresult=True)
    def mlp_no_op_post_init(self, decoder_layer: nn.Module) -> bool:  # type: ignore[empty-body]
        """Turn the ffn half of a built layer into a no-op that keeps no parameters. Returns True."""

    @hookspec(firstresult=True)
    def cache_spec(self, config: Any, block_config: BlockConfig, layer_index: int) -> CacheSpec:  # type: ignore[empty-body]
        """Return what one layer keeps between decoding steps, in elements: per token, over which window, and fixed."""

    @hookspec(firstresult=True)
    def requires_trust_remote_code(self) -> bool:  # type: ignore[empty-body]
        """Return whether the model's code is in the checkpoint and not in transformers."""

    @hookspec(firstresult=True)
    def uses_autocast(self) -> bool:  # type: ignore[empty-body]
        """Return whether a forward pass may run under autocast."""

    # -- pruning ----------------------------------------------------------------------------------------------------

    @hookspec
    def pruning_mixins(self) -> Mapping[str, PruningMixIn]:  # type: ignore[empty-body]
        """Return `{kind: mixin}` for every way in which one half of a layer can be made smaller; merged over plugins.

        Kinds of core: `ffn_intermediate`, `kv_heads`, `query_groups`, `experts_removal`, `expert_intermediate`,
        `mamba_heads`. Two plugins that give the same kind are a clash.
        """

    @hookspec(firstresult=True)
    def residual_stream(self) -> ResidualPruning | None:
        """Return how channels of the residual stream are removed from the whole model; None where they cannot be.

        The capability `hidden_size` says whether there is one. Since 0.2.
        """

    @hookspec
    def importance_hooks(self) -> Mapping[str, type[ImportanceHook]]:  # type: ignore[empty-body]
        """Return `{name: hook class}` for further importance hooks; merged over plugins, clashes are errors."""

    @hookspec
    def export_formats(self) -> Mapping[str, type[ExportFormat]]:  # type: ignore[empty-body]
        """Return `{name: format class}` for further export formats; merged over plugins, clashes are errors."""

    @hookspec
    def candidate_sources(self) -> Mapping[str, type[CandidateSource]]:  # type: ignore[empty-body]
        """Return `{name: source class}` for further candidates of halves; merged over plugins. Since 0.2."""

    @hookspec
    def scoring_metrics(self) -> Mapping[str, type[ScoringMetric]]:  # type: ignore[empty-body]
        """Return `{name: metric class}` for further scoring metrics; merged over plugins, clashes are errors. Since 0.2."""

    @hookspec
    def config_dialects(self) -> Mapping[str, type[ConfigDialect]]:  # type: ignore[empty-body]
        """Return `{name: dialect class}` for the configuration files of other tools; merged over plugins. Since 0.2."""

    @hookspec
    def text_readers(self) -> Mapping[str, type[TextReader]]:  # type: ignore[empty-body]
        """Return `{name: reader class}` for further formats of calibration text; merged over plugins. Since 0.2."""

    @hookspec
    def costs(self) -> Mapping[str, type[Cost]]:  # type: ignore[empty-body]
        """Return `{name: cost class}` for further costs that budgets can bound; merged over plugins. Since 0.2."""

    @hookspec
    def adaptations(self) -> Mapping[str, type[Adaptation]]:  # type: ignore[empty-body]
        """Return `{name: adaptation class}` for further stages that adapt a child's weights; merged over plugins. Since 0.2."""

    @hookspec
    def executors(self) -> Mapping[str, type[Executor]]:  # type: ignore[empty-body]
        """Return `{name: executor class}` for further places where tasks are computed; merged over plugins. Since 0.2."""

    @hookspec
    def storage_types(self) -> Mapping[str, StorageType]:  # type: ignore[empty-body]
        """Return `{name: storage type}` for the numbers in files, which the search chooses; merged over plugins. Since 0.2."""

    # -- after the child is written ---------------------------------------------------------------------------------

    @hookspec
    def evaluations(self) -> Mapping[str, type[Evaluation]]:  # type: ignore[empty-body]
        """Return `{name: evaluation class}` for further evaluations of a child; merged over plugins. Since 0.2."""

    @hookspec
    def report_sections(self) -> Mapping[str, type[ReportSection]]:  # type: ignore[empty-body]
        """Return `{name: section class}` for further sections of a run's report; merged over plugins. Since 0.2."""

    # -- families without an adapter --------------------------------------------------------------------------------

    @hookspec(firstresult=True)
    def infer_family(self, model_type: str, model: str | None) -> object | None:
        """Return a descriptor for a model that no installed adapter serves, or None where that is not yours to infer.

        Since 0.2. Called only where the user allows it: `--infer-family`, `auto:MODEL`, and `inspect` without an adapter. The
        descriptor's attribute `model_type` names the family.

        Args:
            model_type: as `config.json` names it, or what stands after `auto:`.
            model: a folder or hub id whose own configuration may be looked at; None where there is none.

        Raises:
            UnsupportedModelError: what of the model could not be worked out.
        """

    # -- conformance ------------------------------------------------------------------------------------------------

    @hookspec(firstresult=True)
    def capabilities(self) -> Mapping[str, Capability]:  # type: ignore[empty-body]
        """Return the state of every capability in `anyblock.contract.capabilities.CAPABILITIES`; a missing one is unknown."""

    @hookspec(firstresult=True)
    def conformance_config(self) -> Any:
        """Return a tiny Hugging Face configuration of this family with every optional tensor switched on."""
