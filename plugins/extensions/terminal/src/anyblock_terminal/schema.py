"""`anyblock schema`: the JSON Schema of a run's YAML, from the model that validates it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer
from pydantic import BaseModel

from anyblock_terminal.run_app import run_app

_APP = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_INTERPOLATION: Final = {"type": "string", "pattern": r"\$\{.+\}"}
MARK: Final = "Written by `anyblock schema`."
"""The schema's `$comment`."""


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema of a run's YAML.

    Nothing is required, since the command line can give what a file leaves out, and every value may refer to another key
    (`${data.path}`).

    Args:
        model: as `Services.run_settings` returns it.
    """
    found = model.model_json_schema(mode="validation")
    found.pop("required", None)
    for properties in list(_properties(found)):
        for name, of in properties.items():
            if not _takes_text(of) and "$ref" not in of:
                description = {"description": of.pop("description")} if "description" in of else {}
                default = {"default": of.pop("default")} if "default" in of else {}
                properties[name] = {**description, **default, "anyOf": [*of.pop("anyOf", [of]), _INTERPOLATION]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": MARK,
        **found,
        "title": "AnyBlock run",
    }


def schema_text(model: type[BaseModel]) -> str:
    """Return `json_schema` as a file has it."""
    return json.dumps(json_schema(model), indent=2, ensure_ascii=False) + "\n"


@_APP.command()
def schema(
    family: Annotated[
        str | None,
        typer.Option("--family", help="A model_type: kinds that plugins add to its pruning are known as well."),
    ] = None,
) -> None:
    """Print the JSON Schema of the YAML that `anyblock compress` takes, with the sections of all installed extensions."""
    from anyblock.contract.services import services

    typer.echo(schema_text(services().run_settings(family)), nl=False)


def main(arguments: list[str]) -> int:
    """Run the command on these arguments and return its exit code."""
    return run_app(_APP, "schema", arguments)


def _properties(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for part in (schema, *schema.get("$defs", {}).values()):
        if isinstance(part.get("properties"), dict):
            yield part["properties"]


def _takes_text(of: dict[str, Any]) -> bool:
    kinds = [of, *of.get("anyOf", [])]
    return any(kind.get("type") == "string" and not {"enum", "pattern"} & {*kind} for kind in kinds)
