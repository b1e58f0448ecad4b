"""``tracer-async replay``: the readings of a recording, or the recording as a controller."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from tracer_async import Reading
from tracer_async.capture import Recording, anonymized, readings_of, to_line
from tracer_async.cli import formats
from tracer_async.cli.capture_counts import counted
from tracer_async.cli.exit_codes import ExitCode, exit_code
from tracer_async.cli.formats import TO_LINE, Format
from tracer_async.cli.options import Number, format_option, verbose_option
from tracer_async.cli.output_file import opened
from tracer_async.cli.serving import serve, serving_options
from tracer_async.errors import CaptureError

__all__ = ["replay"]

_MAX_WARNINGS = 20
# Seconds. `time.sleep` raises OverflowError for a number above 9e9, and a damaged file can have one.
_MAX_PAUSE = 1e9


def _check_speed(speed: float) -> object:
    from tracer_async.simulator import Replay

    return Replay(Recording(None, ()), speed=speed)


@click.command(short_help="Show a recording, or serve it as a controller.")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE")
@format_option(Format.TEXT, Format.JSON, Format.CSV, Format.LINE_PROTOCOL)
@click.option(
    "-s",
    "--speed",
    type=Number(float, _check_speed),
    metavar="N",
    help="N times faster than then; 0 without delays. The default is 0, and 1 to serve.",
)
@serving_options
@click.option("--loop", is_flag=True, help="Serve: begin again at the end, instead of silence.")
@click.option(
    "--anonymize",
    "out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="OUT",
    help="Write the recording without host names and addresses to OUT.",
)
@verbose_option
@click.pass_context
def replay(
    ctx: click.Context,
    *,
    path: Path,
    output: Format | None,
    speed: float | None,
    tcp: tuple[tuple[str, int], ...],
    pty: bool,
    unix: tuple[str, ...],
    loop: bool,
    out: Path | None,
) -> None:
    """Print the readings of a recording with the times at which they were taken, failed ones included.

    With --tcp, --unix or --pty, serve the recording as a controller: each request is answered as it was answered then,
    also late, damaged, or not at all. A request out of order gets the next answer to an equal one. After the end there
    is silence.

    Damaged lines are skipped, and reported. If every reading failed, the exit code is that of the last error.
    """
    is_served = bool(tcp or pty or unix)
    if is_served + (out is not None) + (output is not None) > 1:
        raise click.UsageError("Serve the recording, print it in a format, or write it to another file: only one.")
    if loop and not is_served:
        raise click.UsageError("--loop needs --tcp, --unix or --pty.")
    recording = _read(path)
    if out is not None:
        _anonymize(path, recording, out)
    elif is_served:
        from tracer_async.simulator import Replay

        serve(Replay(recording, speed=1.0 if speed is None else speed, loop=loop), (tcp, pty, unix))
    else:
        ctx.exit(_print(path, recording, output, speed or 0.0))


def _read(path: Path) -> Recording:
    try:
        recording = Recording.read(path)
    except CaptureError as error:
        raise CaptureError(f"{path}: {error}") from error
    except OSError as error:
        raise click.FileError(str(path), error.strerror) from error
    for line in recording.damaged[:_MAX_WARNINGS]:
        _warn(f"{path}: line {line.number} was skipped: {line.reason}")
    if len(recording.damaged) > _MAX_WARNINGS:
        _warn(f"{path}: {len(recording.damaged)} damaged lines were skipped in all")
    if recording.missing:
        _warn(f"{path}: {counted(recording.missing, 'record')} missing: the recorder could not write them")
    return recording


def _warn(sentence: str) -> None:
    click.echo(f"{click.style('Warning:', fg='yellow')} {sentence}", err=True)


def _anonymize(path: Path, recording: Recording, out: Path) -> None:
    with path.open("rb") as source, opened(out, source, option="--anonymize") as file:
        for record in anonymized(recording).records:
            file.write(to_line(record))
    click.echo(f"{counted(len(recording.records), 'line')} in {out}", err=True)


def _print(path: Path, recording: Recording, output: Format | None, speed: float) -> ExitCode:
    address = formats.printable(recording.header.recorded) if recording.header else str(path)
    good, error = 0, None
    if output is not Format.JSON and output is not Format.LINE_PROTOCOL:
        click.echo(formats.CSV_HEADER if output is Format.CSV else formats.PLAIN_HEADER)
    for reading in _paced(readings_of(recording, address), speed):
        good += reading.ok
        error = reading.error or error
        _print_line(address, reading, output)
    if good:
        return ExitCode.OK
    if error is None:
        raise CaptureError(f"{path}: there is no reading in it. `tracer-async decode` shows what is")
    return exit_code(error)


def _print_line(address: str, reading: Reading, output: Format | None) -> None:
    if output in TO_LINE:
        click.echo(TO_LINE[output](address, reading))
    elif reading.data is None:
        click.echo(f"{formats.local(reading.time)} {reading.error}", err=True)
    else:
        click.echo(formats.to_plain(reading.time, reading.data))


def _paced(readings: Iterator[Reading], speed: float, sleep: Callable[[float], None] = time.sleep) -> Iterator[Reading]:
    """Yield each reading when it is due."""
    before: float | None = None
    for reading in readings:
        if speed and before is not None and reading.time > before:
            sleep(min((reading.time - before) / speed, _MAX_PAUSE))
        before = reading.time
        yield reading
