"""`anyblock report`."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from anyblock.contract.trust import TrustRemoteCode

_APP = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@_APP.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Run folders of `anyblock compress`; several are compared.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where the page goes; RUN/report.html when not given, ./report.html for several runs."
        ),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Show the page in the browser.")] = False,
    texts: Annotated[
        int,
        typer.Option(
            min=0, help="Let teacher and child continue so many texts of the evaluation, and keep that in the run."
        ),
    ] = 0,
    trust_remote_code: TrustRemoteCode = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is not a report.")] = False,
) -> None:
    """Show what runs did as one HTML page, which needs no network and no other file."""
    from anyblock_html_report.page import check_target, render, write_page
    from anyblock_html_report.run import read_run
    from anyblock_html_report.texts import write_texts

    folders = list(dict.fromkeys(path.expanduser() for path in runs))
    target = (out or (folders[0] if len(folders) == 1 else Path()) / "report.html").expanduser()
    found = [read_run(folder) for folder in folders]
    check_target(target, overwrite=overwrite)
    if texts:
        for run in found:
            write_texts(run, texts)
    write_page(render(found), target)
    typer.echo(target)
    if open_page and not webbrowser.open(target.resolve().as_uri()):
        typer.echo("no browser could be started; open the file yourself", err=True)


def main(arguments: list[str]) -> int:
    """Run the command on these arguments and return its exit code."""
    try:
        _APP(args=arguments, prog_name="anyblock report")
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0
