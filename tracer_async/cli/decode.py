"""``tracer-async decode``: the events of a capture, or its readings as a table, and a summary."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import click

from tracer_async.capture import CapturedEvent, CaptureFormat, read_capture
from tracer_async.cli.capture_counts import CaptureCounts
from tracer_async.cli.export import Writer, export, write_csv, write_parquet
from tracer_async.cli.formats import Format, printable
from tracer_async.cli.meanings import Meaning, meaning_of
from tracer_async.cli.options import format_option, output_option, show_warnings, verbose_option
from tracer_async.cli.parquet_file import ParquetFile
from tracer_async.errors import CaptureError
from tracer_async.protocol import START_UP, Frame, Noise

__all__ = ["decode"]


@click.command(
    short_help="Decode a capture file.",
    epilog="To listen on a serial line: cat /dev/ttyUSB1 | tracer-async decode -",
)
@click.argument("file", type=click.File("rb"), metavar="FILE|-")
@format_option(Format.TEXT, Format.JSON, Format.CSV, Format.PARQUET)
@output_option
@click.option(
    "--input-format",
    type=click.Choice([form.value for form in CaptureFormat]),
    help="Format of the capture. By default it is detected.",
)
@verbose_option
def decode(file: BinaryIO, output: Format | None, path: Path | None, input_format: str | None) -> None:
    """Decode a capture: frames and their meaning, damaged frames and noise, with their offsets, and a summary.

    \b
    A capture is one of
      binary   the bytes of a line as they are
      hex      text: EB90EB90, eb 90, EB:90 or 0xEB, 0x90
      jsonl    a line for each burst: {"from": "controller", "hex": "eb90..."}, or
               a recording: tracer-async record and replay

    Offsets count bytes, in a jsonl capture those of one sender. Damage is listed; it does not change the exit code.

    \b
    The output is one of
      text     a line for each event
      json     a JSON object for each event, a line each
      csv      only the readings: a header, then a row for each
      parquet  only the readings, for pandas or Polars (extra: parquet)

    With csv and parquet, the summary goes to standard error. With several senders, the rows of Parquet are
    ordered by sender within each chunk. A capture may have any size: only a few chunks are in memory.
    """  # noqa: D301  # click's mark, not an escape sequence of this text
    output = output or Format.TEXT
    if output is Format.PARQUET:
        ParquetFile.require()
        if path is None and sys.stdout.isatty():
            raise click.UsageError("Standard output is a terminal, and Parquet is binary: add --output FILE.")
    write = {Format.CSV: write_csv, Format.PARQUET: write_parquet}.get(output) or _list_writer(path, output)
    form = CaptureFormat(input_format) if input_format else None
    show_warnings("tracer_async.capture")
    with _naming(file):
        export(write, file, form, path, summary=output in (Format.CSV, Format.PARQUET))


@contextmanager
def _naming(file: BinaryIO) -> Iterator[None]:
    try:
        yield
    except CaptureError as error:
        raise CaptureError(f"{file.name}: {error}") from error


def _list_writer(path: Path | None, form: Format) -> Writer:
    """Return what lists the events of a capture, and ends with the summary."""
    as_json = form is Format.JSON

    def write(file: BinaryIO, capture_format: CaptureFormat | None, out: BinaryIO, counts: CaptureCounts) -> None:
        def write_line(line: str) -> None:
            out.write(f"{click.unstyle(line)}\n".encode())

        # `click.echo` flushes each line, and colours it on a terminal.
        echo: Callable[[str], None] = click.echo if path is None else write_line
        kinds: Counter[str] = Counter()
        try:
            for captured in _told_apart(read_capture(file, capture_format)):
                meaning = meaning_of(captured)
                counts.count(captured)
                if isinstance(captured.event, Frame):
                    kinds[meaning.kind] += 1
                echo(_json_line(captured, meaning) if as_json else _text_line(captured, meaning))
        except CaptureError:
            if counts.bytes:
                echo(_summary(counts, kinds, as_json=as_json))
            raise
        echo(_summary(counts, kinds, as_json=as_json))

    return write


def _told_apart(events: Iterator[CapturedEvent]) -> Iterator[CapturedEvent]:
    """Part the start-up bytes of a request from other noise before them."""
    for captured in events:
        raw = captured.event.raw if isinstance(captured.event, Noise) else b""
        before = len(raw) - len(START_UP)
        if before > 0 and raw.endswith(START_UP):
            yield captured._replace(event=Noise(raw[:before]))
            yield captured._replace(event=Noise(START_UP), offset=captured.offset + before)
        else:
            yield captured


def _text_line(captured: CapturedEvent, meaning: Meaning) -> str:
    name = printable(captured.sender[:12])
    sender = f"{name:12} " if name else ""
    line = f"{captured.offset:>9}  {sender}{meaning.kind:14} {meaning.words}".rstrip()
    color = {"damaged": "red", "malformed": "red", "noise": "yellow", "start-up": "bright_black"}.get(meaning.kind)
    return click.style(line, fg=color) if color else line


def _json_line(captured: CapturedEvent, meaning: Meaning) -> str:
    event = captured.event
    values = {"offset": captured.offset, "size": captured.size, "sender": captured.sender or None, "kind": meaning.kind}
    if isinstance(event, Frame):
        values |= {"controller_id": event.controller_id, "command": f"{event.command:02X}", "data": event.data.hex()}
    return json.dumps({**values, **meaning.values})


def _summary(counts: CaptureCounts, kinds: Counter[str], *, as_json: bool) -> str:
    if as_json:
        counters = {name: count for name, count in asdict(counts).items() if name != "readings"}
        return json.dumps({"kind": "summary", **counters, "frames_by_kind": kinds})
    return "\n".join([str(counts), *(f"{count:>9}  {kind}" for kind, count in sorted(kinds.items()))])
