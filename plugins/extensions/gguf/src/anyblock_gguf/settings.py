"""The settings of the format `gguf`."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias

from anyblock.contract.settings import Positive, Section
from pydantic import AfterValidator, BeforeValidator, Field

_Name: TypeAlias = Literal[
    "f32", "f16", "bf16", "q8_0", "q6_k", "q5_k", "q5_0", "q4_k", "q4_0", "q3_k", "q2_k", "mxfp4"
]
StorageType = Annotated[_Name, BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)]
"""llama.cpp's names, in small or capital letters."""


def _expression(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}") from error
    return value


Expression = Annotated[str, AfterValidator(_expression)]


class GgufSettings(Section):
    """What `anyblock export --format gguf --set NAME=VALUE` takes."""

    type: StorageType | None = Field(
        None,
        description="the storage type of matrices; those that the search chose where none is given, f16 without a search",
    )
    embedding_type: StorageType | None = Field(None, description="that of the embeddings, and of a head tied to them")
    head_type: StorageType | None = Field(None, description="that of a head of its own")
    tensor_types: dict[Expression, StorageType] = Field(
        default_factory=dict,
        description="types by a regular expression found in the tensor's name in the file; the first that is found counts",
    )
    strict: bool = Field(False, description="refuse the child where a tensor's rows do not allow its type")
    importance: str | None = Field(
        None, description="a text file: errors are weighed by the squared inputs that the child sees on it"
    )
    importance_tokens: Positive = Field(8192, description="so many tokens of that text are read at most")
