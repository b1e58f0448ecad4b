"""``tracer-async doctor``: why a controller does not answer, and what to do."""

from __future__ import annotations

import json

import click

from tracer_async.cli.event_loop import run_async
from tracer_async.cli.exit_codes import ExitCode
from tracer_async.cli.formats import Format
from tracer_async.cli.options import format_option, url_argument, verbose_option
from tracer_async.doctor import Finding, Severity, diagnose

__all__ = ["doctor"]

_COLORS = {Severity.OK: "green", Severity.NOTE: "cyan", Severity.WARNING: "yellow", Severity.ERROR: "red"}
_WIDTH = 9  # of the column with the severity


@click.command(short_help="Find out why a controller does not answer.")
@url_argument
@click.option(
    "-s",
    "--seconds",
    type=click.FloatRange(0, 3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to listen before the first request.",
)
@format_option(Format.TEXT, Format.JSON)
@verbose_option
@click.pass_context
def doctor(ctx: click.Context, url: str, seconds: float, output: Format | None) -> None:
    """Check port or network, line and replies, one line for each check, and say what to do.

    It only reads: it never switches the load and never writes settings. It sends nothing while another process that it
    can see has the port open. The exit code is that of the worst finding: 0 if there is only "ok" and "note", 12 for a
    warning, 3 or 4 for an error. With --json each line is an object. docs/doctor.md describes each finding.
    """
    printed = _print_json if output is Format.JSON else _print
    findings: list[Finding] = []

    async def run() -> None:
        findings.extend(await diagnose(url, seconds=seconds, report=printed))

    if output is not Format.JSON:
        click.echo(f"Checking {url} (listens for {seconds:g} s, then only reads)")
    run_async(run)
    if output is not Format.JSON:
        click.echo(_summary(findings))
    ctx.exit(_exit_code(findings))


def _print_json(found: Finding) -> None:
    click.echo(json.dumps({**found._asdict(), "severity": found.severity.value}))


def _print(found: Finding) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    color = _COLORS[found.severity]
    text = Text(f"{found.title}{': ' if found.evidence else ''}{found.evidence}")
    if found.severity is not Severity.OK:
        text.stylize("bold", 0, len(found.title))
        text.append(f" [{found.id}]", "dim")
    if found.advice and found.severity is not Severity.OK:
        text.append(f"\n{found.advice}", color)
    mark = Text(f"{found.severity.value:{_WIDTH}}", color)
    for at, line in enumerate(text.wrap(console, max(console.width - _WIDTH, 20))):
        line.rstrip()
        console.print(Text.assemble(mark if at == 0 else " " * _WIDTH, line))


def _worst(findings: list[Finding]) -> Severity:
    return max((found.severity for found in findings), key=lambda severity: severity.rank, default=Severity.OK)


def _summary(findings: list[Finding]) -> str:
    worst = _worst(findings)
    if worst in (Severity.OK, Severity.NOTE):
        return click.style("The line is healthy.", fg="green")
    first = next(found for found in findings if found.severity is worst)
    return click.style(f"Begin with this: {first.title}. See docs/doctor.md#{first.id}", fg=_COLORS[worst])


def _exit_code(findings: list[Finding]) -> ExitCode:
    worst = _worst(findings)
    if worst is Severity.WARNING:
        return ExitCode.WARNING
    if worst is not Severity.ERROR:
        return ExitCode.OK
    first = next(found for found in findings if found.severity is worst)
    return ExitCode.NO_LINK if first.id.startswith(("port-", "net-")) else ExitCode.NO_ANSWER
