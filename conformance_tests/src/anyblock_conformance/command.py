"""The command `anyblock conformance`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from anyblock.contract.trust import TrustRemoteCode
from anyblock.errors import UsageError

_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code: 0 everything passed, 1 something failed, 2 wrong usage.

    Raises:
        AnyBlockError: the input cannot be used; the command line reports it.
    """
    command = typer.main.get_command(_app)
    try:
        code = command.main(args=arguments, prog_name="anyblock conformance", standalone_mode=False)
    except Exception as error:
        # typer may carry a click of its own; what both raise for wrong usage can show itself and knows its exit code.
        if not hasattr(error, "exit_code") or not hasattr(error, "show"):
            raise
        error.show()
        return int(error.exit_code)
    return int(code or 0)


@_app.command()
def conformance(
    context: typer.Context,
    subject: Annotated[
        str | None,
        typer.Argument(metavar="FAMILY | MODEL", help="An installed family, a checkpoint's directory, or a hub id."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON.")] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the report as a page.")
    ] = None,
    badge_file: Annotated[
        Path | None, typer.Option("--badge", metavar="FILE", help="Write a badge for shields.io.")
    ] = None,
    diff: Annotated[
        tuple[Path, Path] | None, typer.Option("--diff", metavar="A.json B.json", help="Compare two reports instead.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Load the checkpoint too; without it config and headers are read.")
    ] = False,
    level: Annotated[
        list[str] | None, typer.Option("--level", help="structure, convert, build, prune or search. May be repeated.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> int:
    """Check an adapter on its tiny model, or on one checkpoint. Needs no GPU and no network."""
    from rich.console import Console

    console = Console()
    if diff is not None:
        if subject is not None:
            raise UsageError(
                "--diff compares two reports and takes no family or model", expected="--diff A.json B.json"
            )
        return _diff(console, *diff, json_file)
    if subject is None:
        raise UsageError(
            "there is nothing to check", expected="a family, a checkpoint or a hub id", hint=context.get_usage()
        )

    from anyblock_conformance.report.badge import badge
    from anyblock_conformance.report.files import json_text, write_text
    from anyblock_conformance.report.html import html_report
    from anyblock_conformance.report.table import report_view
    from anyblock_conformance.target import run_target

    report = run_target(subject, full=full, levels=level or None, revision=revision)
    console.print(report_view(report), soft_wrap=False)
    written: dict[Path | None, Any] = {
        json_file: lambda: json_text(report.to_dict()),
        html_file: lambda: html_report(report),
        badge_file: lambda: json_text(badge(report)),
    }
    for path, make in written.items():
        if path is not None:
            write_text(path, make())
    return 0 if report.passed else 1


def _diff(console: Any, before: Path, after: Path, json_file: Path | None) -> int:
    from anyblock_conformance.report.diff import diff_view, differences
    from anyblock_conformance.report.files import json_text, read_report, write_text

    reports = read_report(before), read_report(after)
    changes = differences(*reports)
    console.print(diff_view(*reports, changes))
    if json_file is not None:
        write_text(json_file, json_text([change.to_dict() for change in changes]))
    return 1 if any(change.worse for change in changes) else 0
