"""``tracer-async read``: one reading, for people or for programs."""

from __future__ import annotations

import time

import click

from tracer_async import Reading, TracerError
from tracer_async.cli.event_loop import run_async
from tracer_async.cli.formats import CSV_HEADER, TO_LINE, Format
from tracer_async.cli.options import client_of, format_option, link_options, url_argument

__all__ = ["read"]


@click.command(short_help="Print one reading.")
@url_argument
@format_option(Format.TEXT, Format.JSON, Format.CSV, Format.LINE_PROTOCOL)
@link_options
def read(url: str, output: Format | None, timeout: float, retries: int) -> None:
    """Print one reading: a table for people, or one of the formats for programs.

    If there is no answer, the formats for programs contain the error. It is also printed to standard error, and the
    exit code tells its kind.
    """

    async def read_once() -> None:
        async with client_of(url, timeout, retries) as tracer:
            reading = await tracer.read()
        _print(url, reading, output)

    try:
        run_async(read_once)
    except TracerError as error:
        if output in TO_LINE:
            _print(url, Reading(time.time(), None, error), output)
        raise


def _print(url: str, reading: Reading, output: Format | None) -> None:
    if output in TO_LINE:
        if output is Format.CSV:
            click.echo(CSV_HEADER)
        click.echo(TO_LINE[output](url, reading))
        return
    from rich.console import Console

    from tracer_async.cli.tables import reading_table

    Console().print(reading_table(url, reading))
