"""``tracer-async read``: one reading, for people or for programs."""

from __future__ import annotations

from collections.abc import Callable

import click

from tracer_async.cli import formats
from tracer_async.cli.options import client_of, format_options, link_options, url_argument
from tracer_async.cli.running import run_async
from tracer_async.protocol import RealtimeData

__all__ = ["TO_TEXT", "read"]

TO_TEXT: dict[str, Callable[[str, float, RealtimeData], str]] = {
    "json": formats.to_json,
    "csv": formats.to_csv,
    "line-protocol": formats.to_line_protocol,
}
"""What makes a line of a reading, by the name of the option that asks for it."""


@click.command(short_help="Print one reading.")
@url_argument
@format_options
@link_options
def read(url: str, output: str | None, timeout: float, retries: int) -> None:
    """Print one reading: a table for people, or one of the formats for programs."""

    async def read_once() -> None:
        async with client_of(url, timeout, retries) as tracer:
            reading = await tracer.read()
        assert reading.data is not None  # noqa: S101  # a reading that is returned, not polled, has data
        if output is None:
            from rich.console import Console

            from tracer_async.cli.tables import reading_table

            Console().print(reading_table(url, reading.time, reading.data))
            return
        if output == "csv":
            click.echo(formats.CSV_HEADER)
        click.echo(TO_TEXT[output](url, reading.time, reading.data))

    run_async(read_once)
