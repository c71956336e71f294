"""`nemotron_h_puzzle`: the form of NVIDIA's compressed Nemotron-H models, whose layers differ in size."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from anyblock.contract.export_format import Child, ExportFormat, linear_obstacles

if TYPE_CHECKING:
    import torch
    from anyblock.contract.blocks import BlockConfig

_LETTERS: Final = {"mamba": "M", "attention": "*", "moe": "E", "mlp": "-"}
_LAYER: Final = re.compile(r"(backbone\.layers\.)(\d+)(\..+)")
_READ: Final = re.compile(
    r"backbone\.(?:embeddings|norm_f|layers\.\d+\.norm|layers\.\d+\.mixer\.(?:norm|gate|[qkvo]_proj"
    r"|(?:shared_experts|experts\.\d+)\.(?:up|down)_proj))\.weight|lm_head\.weight"
    r"|backbone\.layers\.\d+\.mixer\.(?:A_log|D|dt_bias|gate\.e_score_correction_bias"
    r"|(?:conv1d|in_proj|out_proj|up_proj|down_proj|fc[12]_latent_proj)\.(?:weight|bias))"
)
"""The tensors of Nemotron-H as vLLM builds it."""
_BEYOND: Final = "multi_token_prediction"


class NemotronHPuzzleFormat(ExportFormat):
    """A `NemotronHPuzzleForCausalLM` checkpoint: a Nemotron-H with `block_configs` in its own terms, and the class that reads them.

    Experts and dense FFNs have sizes of their own in every layer; attentions and Mambas have those of the whole model. Layers
    that are gone are left out, and the rest counts.
    """

    summary: ClassVar[str] = "NemotronHPuzzleForCausalLM, for vLLM"

    def obstacles(self, child: Child) -> list[str]:
        """See `ExportFormat.obstacles`: a Nemotron-H whose attentions are alike, and whose Mambas are."""
        if linear := linear_obstacles(child):
            return linear
        if child.config["model_type"] != "nemotron_h":
            return [f"its model_type is {child.config['model_type']}; only nemotron_h can be expressed"]
        view = child.view
        found = [
            f"it has the tensor {name}, which vLLM's Nemotron-H does not have"
            for group in child.model_groups
            for name in child.groups[group]
            if not _READ.fullmatch(name)
        ]
        if not _kept(child):
            found.append("no layer is left")
        if view.tie_word_embeddings:
            found.append("its head is its embedding, and the form has a head of its own")
        for name, computed in (("mlp_hidden_act", "relu2"), ("mamba_hidden_act", "silu")):
            if getattr(view, name) != computed:
                found.append(f"its {name} is {getattr(view, name)}, and readers compute {computed}")
        for name, sizes in _alike(child).items():
            if len(sizes) > 1:
                seen = ", ".join(map(str, sorted(sizes)))
                found.append(f"its layers have {name} of {seen}; the form has one number for all of them")
        return found

    def write(self, child: Child, directory: Path) -> None:
        """See `ExportFormat.write`."""
        places = {index: place for place, index in enumerate(_kept(child))}

        def renumbered(stored: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {
                _LAYER.sub(lambda m: f"{m[1]}{places[int(m[2])]}{m[3]}", name): part for name, part in stored.items()
            }

        child.write_directory(directory, config=_config(child), tensors=renumbered)
        source = Path(__file__).with_name("puzzle_config.py")
        (directory / "configuration_nemotron_h_puzzle.py").write_bytes(source.read_bytes())


def _kept(child: Child) -> list[int]:
    """Return the layers of which something is left."""
    return [index for index, block in enumerate(child.block_configs) if not (block.attention.no_op and block.ffn.no_op)]


def _alike(child: Child) -> dict[str, set[int]]:
    """Return the sizes that the form has once for a model, by their names in its configuration."""
    found: dict[str, set[int]] = {}
    for block in child.block_configs:
        attention = block.attention
        if mamba := attention.mamba:
            found.setdefault("ssm_state_size", set()).add(mamba.state_dim)
            found.setdefault("mamba_num_heads", set()).add(mamba.num_heads)
            found.setdefault("mamba_head_dim", set()).add(mamba.head_dim)
            found.setdefault("n_groups", set()).add(mamba.num_groups)
        elif attention.num_key_value_heads:
            heads = attention.num_attention_heads or child.view.num_attention_heads
            found.setdefault("num_attention_heads", set()).add(heads)
            found.setdefault("num_key_value_heads", set()).add(attention.num_key_value_heads)
    return found


def _block(block: BlockConfig, view: Any) -> dict[str, Any]:
    """Return one layer in the terms of the form."""
    if moe := block.ffn.moe:
        latent = {} if view.moe_latent_size is None else {"moe_latent_size": view.moe_latent_size}
        return {
            "block_type": "moe",
            "n_routed_experts": moe.num_local_experts,
            "num_experts_per_tok": moe.num_experts_per_tok,
            "moe_intermediate_size": moe.expert_intermediate_dim,
            "moe_shared_expert_intermediate_size": moe.shared_expert_intermediate_dim,
            **latent,
        }
    if block.ffn.intermediate_size:
        return {"block_type": "mlp", "intermediate_size": block.ffn.intermediate_size}
    return {"block_type": "mamba" if block.attention.mamba else "attention"}


def _beyond(child: Child) -> list[dict[str, Any]]:
    """Return the layers that predict further tokens, which are the unpruned model's."""
    view = child.view
    if _BEYOND not in child.groups or not view.num_nextn_predict_layers:
        return []
    if stated := child.config.get("mtp_block_configs"):
        return copy.deepcopy(list(stated))
    sizes = ("n_routed_experts", "num_experts_per_tok", "moe_intermediate_size", "moe_shared_expert_intermediate_size")
    experts = {name: getattr(view, name) for name in (*sizes, "moe_latent_size") if getattr(view, name) is not None}
    kinds = {letter: kind for kind, letter in _LETTERS.items()}
    letters = view.resolve().mtp_hybrid_override_pattern
    return [{"block_type": kinds[letter], **(experts if letter == "E" else {})} for letter in letters]


def _config(child: Child) -> dict[str, Any]:
    blocks, beyond = [_block(child.block_configs[index], child.view) for index in _kept(child)], _beyond(child)
    largest: dict[str, int] = {}
    for block in blocks:
        for name, size in block.items():
            if name != "block_type":
                largest[name] = max(size, largest.get(name, size))
    kinds = [block["block_type"] for block in blocks]
    return (
        copy.deepcopy(dict(child.config))
        | largest  # for readers that look no further
        | {name: size for name, (size,) in _alike(child).items()}
        | {
            "architectures": ["NemotronHPuzzleForCausalLM"],
            "model_type": "nemotron_h_puzzle",
            "auto_map": {"AutoConfig": "configuration_nemotron_h_puzzle.NemotronHPuzzleConfig"},
            "block_configs": blocks,
            "mtp_block_configs": beyond,
            "num_nextn_predict_layers": child.view.num_nextn_predict_layers if beyond else 0,
            "layers_block_type": kinds,
            "hybrid_override_pattern": "".join(_LETTERS[kind] for kind in kinds),
            "num_hidden_layers": len(kinds),
            "n_shared_experts": 1,  # transformers builds one of the whole width, readers that many times it
            "sliding_window": None,  # transformers has none, whatever the configuration says
        }
    )
