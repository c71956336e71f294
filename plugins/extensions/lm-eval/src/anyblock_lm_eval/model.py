"""The model `anyblock` of lm-evaluation-harness. Importing this module registers it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyblock.contract.services import services
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM

if TYPE_CHECKING:
    import torch


@register_model("anyblock")
class AnyBlockLM(HFLM):  # type: ignore[misc]  # lm_eval has no types
    """A subblock checkpoint, a child or a Hugging Face model, run by lm_eval as it runs `hf` models.

    One thing differs. Where the tokenizer puts a token such as BOS in front of a text, `hf` has two of them in front of the
    first rolling window, counts the second as predicted, and has none in front of later windows. Here every window begins
    with what the tokenizer puts there, and it is never counted. With `add_bos_token` it is lm_eval's own way.

    Args:
        pretrained: a directory or a hub id.
        revision: revision of a hub id.
        tokenizer: a directory with a tokenizer; None takes the model's own.
        device: `cpu`, `cuda` ..., or `auto`; lm_eval's own default, None, is `auto` too.
        dtype: what is computed in; `auto` is the checkpoint's own where the device is fast in it.
        trust_remote_code: allow code that the checkpoint carries.
        **options: further options of lm_eval's `HFLM`, such as `batch_size`, `max_length` or `add_bos_token`.

    Raises:
        InputError: there is no such model, or it cannot be used.
    """

    def __init__(
        self,
        pretrained: str,
        *,
        revision: str | None = None,
        tokenizer: str | Path | None = None,
        device: str | None = None,
        dtype: str = "auto",
        trust_remote_code: bool = False,
        **options: Any,
    ) -> None:
        self.loaded = services().load_model(
            pretrained,
            revision=revision,
            tokenizer=tokenizer,
            device=device or "auto",
            dtype=dtype,
            trust_remote_code=trust_remote_code,
        )
        self._own_windows = options.get("add_bos_token") is None
        super().__init__(pretrained=self.loaded.model, tokenizer=self.loaded.tokenizer, **options)

    def get_model_info(self) -> dict[str, Any]:
        """Return what lm_eval writes next to its results; the hub is not asked."""
        name, _, commit = self.loaded.origin.partition("@")
        return {
            "model_num_parameters": self.model.num_parameters(),
            "model_dtype": str(self.model.dtype),
            "model_revision": commit,
            "model_sha": commit,
            "model_source": name or self.loaded.folder.name,
        }

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of whole texts."""
        found = [services().rolling_windows(request.args[0], self.loaded, self.max_length) for request in requests]
        texts = [windows for windows in found if windows is not None]
        if not self._own_windows or len(texts) < len(found):
            return list(super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm))
        parts = iter(self._loglikelihood_tokens([(None, *window) for text in texts for window in text], disable_tqdm))
        totals = [sum((next(parts)[0] for _ in text), 0.0) for text in texts]
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def _model_call(self, inps: torch.Tensor, *args: Any, **options: Any) -> Any:
        services().check_tokens(inps, self.loaded)
        return super()._model_call(inps, *args, **options)

    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = False, override_bs: int | None = None) -> Any:
        # With a batch size of its own, each batch of rolling windows is a call; a progress bar for every one is noise.
        quiet = disable_tqdm or override_bs is not None
        return super()._loglikelihood_tokens(requests, disable_tqdm=quiet, override_bs=override_bs)
