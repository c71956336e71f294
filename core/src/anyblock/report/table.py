"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig
from anyblock.errors import UsageError

_BAR_CELLS = 10
_EIGHTHS = " ▏▎▍▌▋▊▉"


def bar(share: float, cells: int = _BAR_CELLS) -> str:
    """Return a bar of `cells` characters whose filled part is `share` (0 to 1), to an eighth of a character."""
    eighths = round(min(max(share, 0.0), 1.0) * cells * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(cells)


def attention_text(attention: AttentionConfig, teacher: AttentionConfig) -> str:
    """Say what is left of a layer's attention, for instance `2 of 8 kv heads`, `mamba, 6 of 8 heads` or `no-op`."""
    if attention.removed:
        return "no-op" if attention.no_op else "linear map"
    if attention.mamba is not None:
        heads = _of(attention.mamba.num_heads, teacher.mamba.num_heads if teacher.mamba else None)
        return f"mamba, {heads} heads"
    if attention.num_key_value_heads is None:
        own = attention.num_attention_heads
        return f"{_of(own, teacher.num_attention_heads)} heads" if own else "kept"
    text = f"{_of(attention.num_key_value_heads, teacher.num_key_value_heads)} kv heads"
    if attention.num_attention_heads != teacher.num_attention_heads and attention.num_attention_heads is not None:
        text += f", {attention.num_attention_heads} query heads"
    return text


def ffn_text(ffn: FFNConfig, teacher: FFNConfig) -> str:
    """Say what is left of a layer's ffn, for instance `96 of 128`, `4 of 8 experts x 192`, or `no-op`."""
    if ffn.removed:
        return "no-op" if ffn.no_op else "linear map"
    if ffn.moe is None:
        return _of(ffn.intermediate_size or 0, teacher.intermediate_size)
    before = teacher.moe
    experts = _of(ffn.moe.num_local_experts, before.num_local_experts if before else None)
    width = _of(ffn.moe.expert_intermediate_dim, before.expert_intermediate_dim if before else None)
    return f"{experts} experts x {width}"


def attention_share(attention: AttentionConfig, teacher: AttentionConfig) -> float:
    """Return the kept share of key-value heads (of Mamba heads, of latent attention's), 0 for a no-op or a linear map, else 1."""
    if attention.removed:
        return 0.0
    if attention.mamba is not None and teacher.mamba is not None:
        return attention.mamba.num_heads / teacher.mamba.num_heads
    for own, before in (
        (attention.num_key_value_heads, teacher.num_key_value_heads),
        (attention.num_attention_heads, teacher.num_attention_heads),
    ):
        if own is not None and before:
            return own / before
    return 1.0


def ffn_share(ffn: FFNConfig, teacher: FFNConfig) -> float:
    """Return the kept share of ffn channels, over all experts where it is sparse; 0 for a no-op or a linear map."""
    width, before = _channels(ffn), _channels(teacher)
    return width / before if before else (1.0 if width else 0.0)


def check_same_layers(block_configs: Sequence[BlockConfig], teacher: Sequence[BlockConfig]) -> None:
    """Refuse two lists of different lengths.

    Raises:
        UsageError: the child and the teacher do not have the same number of layers.
    """
    if len(block_configs) != len(teacher):
        raise UsageError(
            f"{len(block_configs)} block configs of the child, {len(teacher)} of the teacher",
            expected="one a layer in both",
        )


def block_table(block_configs: Sequence[BlockConfig], teacher_block_configs: Sequence[BlockConfig]) -> Table:
    """Return a table of the child, layer by layer: what is left of its attention and its ffn, with a bar for the share.

    Raises:
        UsageError: the child and the teacher do not have the same number of layers.
    """
    check_same_layers(block_configs, teacher_block_configs)
    table = Table(title="Blocks", title_justify="left", header_style="bold")
    table.add_column("layer", justify="right")
    table.add_column("attention")
    table.add_column("", no_wrap=True)
    table.add_column("ffn")
    table.add_column("", no_wrap=True)
    for index, (child, teacher) in enumerate(zip(block_configs, teacher_block_configs, strict=True)):
        halves = (
            (attention_text(child.attention, teacher.attention), attention_share(child.attention, teacher.attention)),
            (ffn_text(child.ffn, teacher.ffn), ffn_share(child.ffn, teacher.ffn)),
        )
        cells = [cell for text, share in halves for cell in (_styled(text, share), f"{bar(share)} {share:4.0%}")]
        table.add_row(str(index), *cells)
    return table


def _styled(text: str, share: float) -> str:
    if share == 0.0:
        return f"[red]{text}[/red]"
    return text if share == 1.0 else f"[yellow]{text}[/yellow]"


def _of(value: int, teacher: int | None) -> str:
    return str(value) if teacher is None or value == teacher else f"{value} of {teacher}"


def _channels(ffn: FFNConfig) -> int:
    if ffn.moe is None:
        return ffn.intermediate_size or 0
    routed = ffn.moe.num_local_experts * ffn.moe.expert_intermediate_dim
    return routed + (ffn.moe.shared_expert_intermediate_dim or 0)
