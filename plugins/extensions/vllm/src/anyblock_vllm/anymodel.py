"""`anymodel`: the configuration that vLLM's AnyModel (vllm-project/vllm pull request 36512) reads."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, ClassVar

from anyblock.contract.export_format import Child, ExportFormat, linear_obstacles

from anyblock_vllm.widths import MARLIN


class AnyModelFormat(ExportFormat):
    """A Hugging Face directory of the architecture `AnyModel`, with the stock one as `base_architecture`.

    `per_layer_config` holds by layer index what differs from the rest of the configuration, and `skip`, the removed halves.
    """

    summary: ClassVar[str] = "for vLLM with AnyModel (pull request 36512) and ModelOpt's deployments"
    width_multiples: ClassVar[tuple[int, ...]] = MARLIN

    def obstacles(self, child: Child) -> list[str]:
        """See `ExportFormat.obstacles`: the configuration must name a stock architecture, and no half be a linear map."""
        if len(child.config.get("architectures") or ()) != 1:
            return [f"its architectures are {child.config.get('architectures')}; the form needs the name of one"]
        return linear_obstacles(child)

    def write(self, child: Child, directory: Path) -> None:
        """See `ExportFormat.write`."""
        config: dict[str, Any] = copy.deepcopy(dict(child.config))
        differences = enumerate(child.layer_differences())
        child.text_part(config)["per_layer_config"] = {str(index): layer for index, layer in differences if layer}
        (base,) = config["architectures"]
        child.write_directory(directory, config=config | {"architectures": ["AnyModel"], "base_architecture": base})
