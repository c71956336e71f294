"""`anymodel`: the configuration that vLLM's AnyModel (vllm-project/vllm pull request 36512) reads."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from anyblock.contract.export_format import ExportFormat
from anyblock.export.directory import write_directory
from anyblock.export.uniform import by_layer, layer_differences, linear_obstacles, text_part

if TYPE_CHECKING:
    from anyblock.checkpoint.subblocks import SubblockCheckpoint
    from anyblock.family import ModelFamily


class AnyModelFormat(ExportFormat):
    """A Hugging Face directory of the architecture `AnyModel`, with the stock one as `base_architecture`.

    `per_layer_config` holds by layer index what differs from the rest of the configuration, and `skip`, the removed halves.
    """

    summary: ClassVar[str] = "for vLLM with AnyModel (pull request 36512) and ModelOpt's deployments"

    def obstacles(self, child: SubblockCheckpoint, family: ModelFamily) -> list[str]:
        """See `ExportFormat.obstacles`: the configuration must name a stock architecture, and no half be a linear map."""
        if len(child.config.get("architectures") or ()) != 1:
            return [f"its architectures are {child.config.get('architectures')}; the form needs the name of one"]
        return linear_obstacles(child)

    def write(self, child: SubblockCheckpoint, family: ModelFamily, directory: Path) -> None:
        """See `ExportFormat.write`."""
        config: dict[str, Any] = copy.deepcopy(child.config)
        text_part(config, family)["per_layer_config"] = by_layer(layer_differences(child, family))
        (base,) = config["architectures"]
        write_directory(child, directory, config=config | {"architectures": ["AnyModel"], "base_architecture": base})
