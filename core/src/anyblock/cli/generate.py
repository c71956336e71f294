"""`anyblock generate`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from anyblock.cli.options import Device, Dtype, Model
from anyblock.contract.trust import TrustRemoteCode


def generate(
    model: Model,
    prompt: Annotated[str, typer.Argument(help="What the text begins with.")],
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to add at most.")] = 60,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the most likely token.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    chat: Annotated[bool, typer.Option("--chat", help="Put the prompt into the model's chat template.")] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Continue a text with a model or a child."""
    import torch

    from anyblock.contract.services import services
    from anyblock.contract.text_reader import require_characters
    from anyblock.errors import UsageError

    require_characters(prompt, "the prompt")
    found = services().load_model(model, device=device, dtype=dtype)
    loaded: Any = found.model
    tokenizer = found.tokenizer
    if chat and not tokenizer.chat_template:
        raise UsageError(f"{found.folder} has no chat template", hint="leave out --chat")
    if chat:
        messages = [{"role": "user", "content": prompt}]
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
    else:
        inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    if inputs["input_ids"].shape[1] == 0:
        raise UsageError("the prompt is empty", expected="some text to continue")
    services().check_tokens(inputs["input_ids"], found)
    torch.manual_seed(seed)
    sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
    end = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    output = loaded.generate(**inputs.to(loaded.device), max_new_tokens=max_new_tokens, pad_token_id=end, **sampling)
    start = inputs["input_ids"].shape[1] if chat else 0
    typer.echo(tokenizer.decode(output[0][start:], skip_special_tokens=True))
