"""``tracer-async watch``: a live view on a terminal, a line a reading anywhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import click

from tracer_async import Reading, TracerError
from tracer_async.cli import formats
from tracer_async.cli.exit_codes import exit_code
from tracer_async.cli.options import client_of, format_options, link_options, url_argument, usage_errors
from tracer_async.cli.read import TO_TEXT
from tracer_async.cli.running import run_async

if TYPE_CHECKING:
    from tracer_async import TracerClient
    from tracer_async.cli.view import View

__all__ = ["watch"]

_HEADERS = {None: formats.PLAIN_HEADER, "csv": formats.CSV_HEADER}


def _writable(_ctx: click.Context, _param: click.Parameter, path: Path | None) -> Path | None:
    """Find out now, not after an hour of watching, that the file cannot be written."""
    if path is not None and not os.access(path if path.exists() else path.parent, os.W_OK):
        raise click.BadParameter(f"{path} cannot be written.")
    return path


@click.command(short_help="Read again and again, as a live view.")
@url_argument
@click.option(
    "--interval",
    type=click.FloatRange(0, min_open=True),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="From one reading to the next.",
)
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N readings, failed ones included.")
@click.option("--plain", is_flag=True, help="Print a line a reading on a terminal, too.")
@click.option(
    "--svg",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_writable,
    metavar="FILE",
    help="At the end, write the view to an SVG file.",
)
@format_options
@link_options
@click.pass_context
def watch(
    ctx: click.Context,
    *,
    url: str,
    interval: float,
    count: int | None,
    plain: bool,
    svg: Path | None,
    output: str | None,
    timeout: float,
    retries: int,
) -> None:
    """Read again and again: a live view on a terminal, else a line a reading.

    A reading that fails is shown, or goes to standard error, and the watch goes on; with --count it fails if every
    reading did.
    """
    live = output is None and not plain and _is_terminal(ctx)
    view = None
    if live or svg:
        from tracer_async.cli.view import View

        view = View(url, interval)
    seen = failed = 0
    error: TracerError | None = None

    async def follow() -> None:
        nonlocal seen, failed, error
        async with client_of(url, timeout, retries) as tracer:
            with usage_errors():
                poll = tracer.poll(interval)
            screen = _draw(tracer, view) if live and view else nullcontext()
            async with screen as refresh, aclosing(poll) as readings:
                if not live and output in _HEADERS:
                    click.echo(_HEADERS[output])
                async for reading in readings:
                    seen += 1
                    if reading.error is not None:
                        failed, error = failed + 1, reading.error
                    if view:
                        view.take(reading, tracer.stats, tracer.state)
                    if refresh:
                        refresh()
                    else:
                        _print(url, reading, output)
                    if seen == count:
                        return

    try:
        run_async(follow)
    finally:
        if view and svg and seen:
            svg.write_text(view.to_svg(), encoding="utf-8")
    if error is not None and failed == seen:
        ctx.exit(exit_code(error))


def _is_terminal(ctx: click.Context) -> bool:
    """Whether a live view can be drawn: on a real terminal, and one that nothing is logged to at the same time."""
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return False
    return not (ctx.meta.get("verbosity") and sys.stderr.isatty())


@asynccontextmanager
async def _draw(tracer: TracerClient, view: View) -> AsyncIterator[Callable[[], None]]:
    """Keep *view* on the terminal, and leave the last one standing there; give what draws it at once."""
    from rich.console import Console
    from rich.live import Live

    console = Console()

    async def tick(live: Live) -> None:
        while True:
            await anyio.sleep(1)
            view.follow(tracer.stats, tracer.state)
            live.refresh()

    try:
        with Live(view, console=console, screen=True, auto_refresh=False) as live:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(tick, live)
                live.refresh()
                yield live.refresh
                tasks.cancel_scope.cancel()
    finally:
        console.print(view, height=console.height - 2)  # and the prompt below it


def _print(url: str, reading: Reading, output: str | None) -> None:
    if reading.data is None:
        click.echo(f"{formats.utc(reading.time, 'seconds')} {reading.error}", err=True)
    elif output:
        click.echo(TO_TEXT[output](url, reading.time, reading.data))
    else:
        click.echo(formats.to_plain(reading.time, reading.data))
