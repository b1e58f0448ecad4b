"""``tracer-async watch``: a live view on a terminal, a line for each reading anywhere else."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from tracer_async import Fleet, Reading, TracerClient, TracerError
from tracer_async.cli import formats
from tracer_async.cli.event_loop import run_async
from tracer_async.cli.exit_codes import exit_code
from tracer_async.cli.formats import TO_LINE, Format
from tracer_async.cli.live import can_draw
from tracer_async.cli.options import client_of, format_option, interval_option, link_options, resolved_url
from tracer_async.cli.systemd import is_service, notify_ready

if TYPE_CHECKING:
    from tracer_async.cli.fleet_view import FleetView
    from tracer_async.cli.view import View

__all__ = ["watch"]


def _checked_urls(ctx: click.Context, _param: click.Parameter, urls: tuple[str, ...]) -> tuple[str, ...]:
    checked = tuple(resolved_url(ctx, url) for url in urls or ("",))
    twice = [url for url, count in Counter(checked).items() if count > 1]
    if twice:
        raise click.UsageError(f"{twice[0]} is given twice.", ctx)
    return checked


def _writable(_ctx: click.Context, _param: click.Parameter, path: Path | None) -> Path | None:
    """Find out now, not after an hour of watching, that the file cannot be written."""
    if path is not None and not os.access(path if path.exists() else path.parent, os.W_OK):
        raise click.BadParameter(f"{path} cannot be written.")
    return path


@click.command(short_help="Read again and again, as a live view.")
@click.argument("urls", nargs=-1, metavar="[URL]...", callback=_checked_urls)
@interval_option
@click.option(
    "-n",
    "--count",
    type=click.IntRange(1),
    metavar="N",
    help="End after N readings of each controller, failed ones included.",
)
@click.option("-p", "--plain", is_flag=True, help="Print a line for each reading, on a terminal as well.")
@click.option(
    "-w/-W",
    "--wait/--no-wait",
    default=None,
    help="Keep trying, or fail, if there is no connection at the start. The default is --wait with a --format for "
    "programs and in a systemd service, else --no-wait. With several URLs it is always --wait.",
)
@click.option(
    "--svg",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_writable,
    metavar="FILE",
    help="At the end, write the view to an SVG file.",
)
@format_option(Format.TEXT, Format.JSON, Format.CSV, Format.LINE_PROTOCOL)
@link_options
@click.pass_context
def watch(
    ctx: click.Context,
    *,
    urls: tuple[str, ...],
    interval: float,
    count: int | None,
    plain: bool,
    wait: bool | None,
    svg: Path | None,
    output: Format | None,
    timeout: float,
    retries: int,
) -> None:
    """Read again and again: a live view on a terminal, else a line for each reading.

    With several URLs the view has a line for each controller. A failed reading does not end the watch: its error is
    shown in the view, or goes to standard error. If every reading failed, the exit code is that of the last error.
    """
    if wait is False and len(urls) > 1:
        raise click.UsageError("--no-wait needs a single URL. With several, the watch keeps trying.", ctx)
    is_live = output is None and not plain and can_draw(ctx)
    if wait is None:
        wait = output in TO_LINE or is_service()
    source = _several if len(urls) > 1 else _one
    view = _view(urls, interval) if is_live or svg else None
    result = _Result()

    async def follow() -> None:
        async with source(urls, _Options(interval, timeout, retries, wait)) as (tracers, readings):
            notify_ready()
            screen: AbstractAsyncContextManager[Callable[[], None] | None] = nullcontext()
            if is_live and view:
                from tracer_async.cli.screen import shown

                screen = shown(view, lambda: view.follow(tracers))
            elif output not in (Format.JSON, Format.LINE_PROTOCOL):
                click.echo(_header(urls, output))
            async with screen as refresh:
                async for name, reading in readings:
                    if not result.count(name, reading, count):
                        continue
                    if view:
                        view.take(name, reading)
                        view.follow(tracers)
                    if refresh:
                        refresh()
                    else:
                        _print(name, reading, output, named=len(urls) > 1)
                    if result.is_complete(urls, count):
                        return

    try:
        run_async(follow)
    finally:
        if view and svg and result.seen:
            from tracer_async.cli.picture import to_svg

            view.end()
            svg.write_text(to_svg(view, shlex.join(["tracer-async", "watch", *urls])), encoding="utf-8")
    if result.error is not None and not result.is_any_good:
        ctx.exit(exit_code(result.error))


class _Result:
    """What has been read."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.is_any_good = False
        self.error: TracerError | None = None
        """The last error."""

    def count(self, name: str, reading: Reading, wanted: int | None) -> bool:
        """Count a reading; return False for one more than *wanted*."""
        if self.seen[name] == wanted:
            return False
        self.seen[name] += 1
        self.is_any_good = self.is_any_good or reading.ok
        self.error = reading.error or self.error
        return True

    def is_complete(self, urls: tuple[str, ...], wanted: int | None) -> bool:
        """Return whether there are as many readings of each controller as wanted."""
        return all(self.seen[url] == wanted for url in urls)


# Where readings come from


class _Options(NamedTuple):
    interval: float
    timeout: float
    retries: int
    wait: bool


_Source = tuple[Mapping[str, TracerClient], AsyncIterator[tuple[str, Reading]]]


@asynccontextmanager
async def _one(urls: tuple[str, ...], options: _Options) -> AsyncIterator[_Source]:
    (url,) = urls
    async with (
        client_of(url, options.timeout, options.retries, start_offline=options.wait) as tracer,
        aclosing(_named(url, tracer.poll(options.interval))) as readings,
    ):
        yield {url: tracer}, readings


async def _named(name: str, poll: AsyncGenerator[Reading, None]) -> AsyncGenerator[tuple[str, Reading], None]:
    async with aclosing(poll) as readings:
        async for reading in readings:
            yield name, reading


@asynccontextmanager
async def _several(urls: tuple[str, ...], options: _Options) -> AsyncIterator[_Source]:
    async with Fleet() as fleet:
        tracers = {
            url: fleet.add(url, interval=options.interval, timeout=options.timeout, retries=options.retries)
            for url in urls
        }
        yield tracers, fleet


# The live view


def _view(urls: tuple[str, ...], interval: float) -> View | FleetView:
    if len(urls) > 1:
        from tracer_async.cli.fleet_view import FleetView

        return FleetView(urls, interval)
    from tracer_async.cli.view import View

    return View(urls[0], interval)


# Lines


def _header(urls: tuple[str, ...], output: Format | None) -> str:
    if output is Format.CSV:
        return formats.CSV_HEADER
    return f"{formats.PLAIN_HEADER} address" if len(urls) > 1 else formats.PLAIN_HEADER


def _print(name: str, reading: Reading, output: Format | None, *, named: bool) -> None:
    if output in TO_LINE:
        click.echo(TO_LINE[output](name, reading))
    elif reading.data is None:
        click.echo(f"{formats.local(reading.time)} {reading.error}", err=True)
    else:
        line = formats.to_plain(reading.time, reading.data)
        click.echo(f"{line} {name}" if named else line)
