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
from tracer_async.cli.options import interval_option, link_options, resolved_url, show_warnings, usage_errors
from tracer_async.cli.systemd import notify_ready
from tracer_async.errors import AddressError, TracerError
from tracer_async.sharing import Listener
from tracer_async.transport import parse_address

__all__ = ["record"]

_RIGHT = "Example: tracer-async record URL line.jsonl"
_DEVICES = Path("/dev")


@click.command(short_help="Record all bytes of a line in a file.")
@click.argument("words", nargs=-1, type=click.Path(readable=False), metavar="[URL] FILE")
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
    words: tuple[str, ...],
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
    url, path = _url_and_path(ctx, words)
    try:
        recorder = Recorder(path, fsync=fsync)
    except OSError as error:
        raise click.FileError(str(path), error.strerror) from error
    # Without a connection there is no reading to count, so a warning says why nothing is recorded.
    show_warnings("tracer_async" if listen else "tracer_async.capture")
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
        async with Listener(url, recorder=recorder, start_offline=True) as listener:
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
        number = recorder.missing
        missing = f", {counted(number, 'record is', 'records are')} missing" if number else ""
        counts = f"{counted(seen[True], 'reading')} and {counted(seen[False], 'error')}"
        click.echo(f"{counts} in {path}{missing}", err=True)
    if last_error is not None and not seen[True]:
        click.echo(f"{click.style('Error:', fg='red')} {last_error}", err=True)
        ctx.exit(exit_code(last_error))


def _url_and_path(ctx: click.Context, words: tuple[str, ...]) -> tuple[str, Path]:
    if not words:
        raise click.UsageError(f"Missing FILE. {_RIGHT}", ctx)
    if len(words) > 2:
        raise click.UsageError(f"Give one URL and one FILE. {_RIGHT}", ctx)
    *urls, file = words
    if not urls and _is_controller(file):
        raise click.UsageError(f"Missing FILE: {file} is the URL of a controller. {_RIGHT}", ctx)
    path = click.Path(dir_okay=False, path_type=Path).convert(file, None, ctx)
    return resolved_url(ctx, urls[0] if urls else ""), Path(path)


def _is_controller(word: str) -> bool:
    """Return whether *word*, given alone, is a URL or a device: nothing may be written into a serial port."""
    try:
        parse_address(word)
    except AddressError:
        return False
    path = Path(word)
    # The address of a serial port has the form of every other absolute path.
    return not path.is_absolute() or path.parent == _DEVICES or (path.exists() and not path.is_file())
