"""Hooks, groups, names and paths."""

from __future__ import annotations

import re
from dataclasses import replace

from anyblock.contract.capabilities import Capability, Support
from anyblock.contract.hookspecs import hookimpl
from anyblock.contract.scoring_metric import ScoringMetric
from anyblock.contract.settings import Section
from anyblock.modeling.metrics import KlDivergence
from pydantic import Field

from mutants.good import Dense, Instead
from mutants.registry import mutant


@mutant("structure.conformance-config")
class TestsOneLayerOnly(Dense):
    __test__ = False

    @hookimpl
    def conformance_config(self):
        config = super().conformance_config()
        config.num_hidden_layers = 1
        return config


@mutant("structure.hooks")
class AnswersYesInsteadOfTrue(Dense):
    @hookimpl
    def uses_autocast(self):
        return "yes"


@mutant("structure.claims")
class ClaimsExpertsOfADenseModel(Dense):
    @hookimpl
    def capabilities(self):
        return {**super().capabilities(), "experts_removal": Capability(Support.FULL)}


@mutant("structure.claims")
class ClaimsAHiddenSizeThatItCannotChange(Dense):
    @hookimpl
    def residual_stream(self):
        return None

    @hookimpl
    def capabilities(self):
        return {**super().capabilities(), "hidden_size": Capability(Support.FULL)}


@mutant("structure.language-config")
class TextConfigOfAnotherVocabulary(Dense):
    @hookimpl
    def language_model_config(self, config):
        return Instead(config, vocab_size=config.vocab_size // 2)


@mutant("structure.config-view")
class TellsConfigClassesApart(Dense):
    @hookimpl
    def cache_spec(self, config, block_config, layer_index):
        from transformers import PreTrainedConfig

        spec = super().cache_spec(config, block_config, layer_index)
        return spec if isinstance(config, PreTrainedConfig) else replace(spec, per_token=2 * spec.per_token)


@mutant("structure.pure-hooks")
class ChangesTheConfigItReads(Dense):
    @hookimpl
    def create_block_configs(self, config):
        from transformers import PreTrainedConfig

        if isinstance(config, PreTrainedConfig):
            config.blocks_were_created = True
        return super().create_block_configs(config)


@mutant("structure.module-paths")
class NamesTheEmbeddingsWeight(Dense):
    @hookimpl
    def input_embedding_name(self):
        return "model.embed_tokens.weight"


@mutant("structure.decoder-layers")
class NamesTheAttentionClass(Dense):
    decoder_layer = "transformers.models.llama.modeling_llama.LlamaAttention"


@mutant("structure.group-names")
class NamesOneLayerTooMany(Dense):
    @hookimpl
    def layer_name_predicates(self, num_layers, config):
        return super().layer_name_predicates(num_layers + 1, config)


@mutant("structure.tensor-groups")
class ForgetsTheBiases(Dense):
    @hookimpl
    def layer_name_predicates(self, num_layers, config):
        groups = super().layer_name_predicates(num_layers, config)
        return {
            group: re.compile(pattern.pattern.removesuffix(".+") + r".*weight") for group, pattern in groups.items()
        }


@mutant("structure.tensor-groups")
class TwoGroupsTakeTheFinalNorm(Dense):
    @hookimpl
    def layer_name_predicates(self, num_layers, config):
        groups = super().layer_name_predicates(num_layers, config)
        return {**groups, "embeddings": re.compile(r"model\.(embed_tokens|norm)\..+")}


@mutant("structure.many-layers")
class MixesUpLayers1And10(Dense):
    @hookimpl
    def layer_name_predicates(self, num_layers, config):
        groups = super().layer_name_predicates(num_layers, config)
        return {
            group: re.compile(re.sub(r"layers\\\.(\d+)", r"layers\\.\1.*", p.pattern)) for group, p in groups.items()
        }


@mutant("structure.outer-groups")
class FinalNormAmongTheEmbeddings(Dense):
    @hookimpl
    def layer_name_predicates(self, num_layers, config):
        groups = super().layer_name_predicates(num_layers, config)
        outer = {"embeddings": re.compile(r"model\.(embed_tokens|norm)\..+"), "lm_head": re.compile(r"lm_head\..+")}
        return {**groups, **outer}


@mutant("structure.weight-names")
class RenamesAgainWhenAskedAgain(Dense):
    @hookimpl
    def convert_weight_name(self, name):
        return re.sub("gate_proj|up_proj", lambda match: {"gate_proj": "up_proj"}.get(match[0], "gate_proj"), name)


@mutant("structure.dtypes")
class TextConfigOfAnotherDtype(Dense):
    @hookimpl
    def language_model_config(self, config):
        return Instead(config, dtype="bfloat16")


class _Undescribed(Section):
    strength: float = 1.0


class _Refused(Section):
    strength: float = Field(default=-1.0, gt=0, validate_default=False, description="How strong it is.")


def _metric(**attributes: object) -> type[ScoringMetric]:
    return type("Metric", (KlDivergence,), attributes)


@mutant("structure.named-objects")
class AMetricWithoutSummary(Dense):
    @hookimpl
    def scoring_metrics(self):
        return {"mine": _metric(summary="", __doc__="")}


@mutant("structure.named-objects")
class SettingsWithoutDescription(Dense):
    @hookimpl
    def scoring_metrics(self):
        return {"mine": _metric(settings=_Undescribed)}


@mutant("structure.named-objects")
class DefaultSettingsThatAreRefused(Dense):
    @hookimpl
    def scoring_metrics(self):
        return {"mine": _metric(settings=_Refused)}
