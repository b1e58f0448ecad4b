"""``tracer-async record``: polls a controller, or listens to it, and writes all bytes in both directions to a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import click

from tracer_async import Reading, TracerClient
from tracer_async.capture import Recorder
from tracer_async.cli.capture_counts import counted
from tracer_async.cli.event_loop import run_async
from tracer_async.cli.exit_codes import exit_code
from tracer_async.cli.options import interval_option, link_options, show_warnings, url_argument, usage_errors
from tracer_async.cli.systemd import notify_ready
from tracer_async.errors import TracerError
from tracer_async.sharing import Listener

__all__ = ["record"]


@click.command(short_help="Record all bytes of a line in a file.")
@url_argument
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
@interval_option
@click.option("-n", "--count", type=click.IntRange(1), metavar="N", help="End after N readings, failed ones included.")
@click.option("--listen", is_flag=True, help="Send nothing: record what another master reads, see `listen`.")
@click.option(
    "--fsync",
    is_flag=True,
    help="Write to the disk every half second, for power failures. It wears out SD cards.",
)
@link_options
@click.pass_context
def record(
    ctx: click.Context,
    *,
    url: str,
    path: Path,
    interval: float,
    count: int | None,
    listen: bool,
    fsync: bool,
    timeout: float,
    retries: int,
) -> None:
    """Read again and again until Ctrl-C, and record all bytes in both directions, with their times.

    An existing recording is continued. Without a connection it keeps trying. If every reading failed, the exit code is
    that of the last error. `tracer-async replay FILE` shows the recording.
    """
    try:
        recorder = Recorder(path, fsync=fsync)
    except OSError as error:
        raise click.FileError(str(path), error.strerror) from error
    show_warnings("tracer_async.capture")
    seen: Counter[bool] = Counter()
    last_error: TracerError | None = None

    @asynccontextmanager
    async def polling() -> AsyncIterator[AsyncGenerator[Reading, None]]:
        with usage_errors():
            client = TracerClient(url, timeout=timeout, retries=retries, start_offline=True, recorder=recorder)
        async with client as tracer:
            yield tracer.poll(interval)

    @asynccontextmanager
    async def listening() -> AsyncIterator[AsyncGenerator[Reading, None]]:
        async with Listener(url, recorder=recorder) as listener:
            yield listener.readings()

    async def follow() -> None:
        nonlocal last_error
        async with listening() if listen else polling() as source, aclosing(source) as readings:
            click.echo(f"recording {url} in {path}, Ctrl-C ends it", err=True)
            notify_ready()
            async for reading in readings:
                seen[reading.ok] += 1
                last_error = reading.error or last_error
                if count is not None and seen.total() >= count:
                    return

    try:
        with recorder:
            run_async(follow)
    finally:
        click.echo(f"{counted(seen[True], 'reading')} and {counted(seen[False], 'error')} in {path}", err=True)
    if last_error is not None and not seen[True]:
        click.echo(f"{click.style('Error:', fg='red')} {last_error}", err=True)
        ctx.exit(exit_code(last_error))
