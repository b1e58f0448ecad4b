"""The content of a capture, written to a file or to standard output, in bounded memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import click

from tracer_async.capture import CaptureFormat, decode_chunks, read_capture
from tracer_async.cli.capture_counts import CaptureCounts, counted
from tracer_async.cli.formats import csv_line, printable
from tracer_async.cli.output_file import opened, progress, size_of
from tracer_async.cli.parquet_file import COLUMNS, ParquetFile
from tracer_async.errors import CaptureError
from tracer_async.protocol import CommandCode, Event, Frame, RealtimeData

__all__ = ["Writer", "export", "write_csv", "write_parquet"]

Writer = Callable[[BinaryIO, CaptureFormat | None, BinaryIO, CaptureCounts], None]
"""Decodes the first file, writes to the second, and counts what it has decoded."""


def export(
    write: Writer, file: BinaryIO, capture_format: CaptureFormat | None, path: Path | None, *, summary: bool
) -> None:
    """Let *write* decode *file* to *path*, or to standard output; then print a *summary* to standard error.

    Raises CaptureError as `read_capture` does, after what stands before a wrong line has been written.
    """
    counts = CaptureCounts()
    broken: CaptureError | None = None
    # On a terminal the output itself shows the progress.
    quiet = path is None and sys.stdout.isatty()
    with opened(path, file) as out, progress(file, quiet=quiet) as followed:
        try:
            write(followed, capture_format, out, counts)
        except CaptureError as error:
            if not counts.bytes:
                raise
            broken = error
    if summary:  # after the progress bar has gone
        click.echo(f"{counted(counts.readings, 'reading')} in {counts}", err=True)
    if broken is not None:
        raise broken


def write_csv(file: BinaryIO, capture_format: CaptureFormat | None, out: BinaryIO, counts: CaptureCounts) -> None:
    """Write a row for each reading; from a pipe, each row as soon as it is known."""
    is_live = size_of(file) is None
    for captured in read_capture(file, capture_format):
        if not counts.bytes:
            out.write(f"{csv_line(COLUMNS)}\n".encode())
        counts.count(captured)
        data = _reading(captured.event)
        if data is not None:
            counts.readings += 1
            row = (captured.offset, printable(captured.sender) or None, *data.to_dict().values())
            out.write(f"{csv_line(row)}\n".encode())
            if is_live:
                out.flush()


def _reading(event: Event) -> RealtimeData | None:
    if not isinstance(event, Frame) or event.command != CommandCode.READ_REALTIME:
        return None
    try:
        return RealtimeData.from_bytes(event.data)
    except ValueError:
        return None


def write_parquet(file: BinaryIO, capture_format: CaptureFormat | None, out: BinaryIO, counts: CaptureCounts) -> None:
    """Write a Parquet file of the readings."""
    with closing(ParquetFile(out)) as columns:
        try:
            for chunk in decode_chunks(file, capture_format):
                counts.count_chunk(chunk)
                columns.write(chunk.readings, chunk.senders)
        except CaptureError:
            columns.finish()
            raise
        columns.finish()
