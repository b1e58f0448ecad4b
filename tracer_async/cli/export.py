"""The readings of a capture as a table: CSV and JSON a row at a time as they are read, npz and Parquet in bulk.

Memory is bounded, whatever the capture's size.
"""

from __future__ import annotations

import csv
import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from io import StringIO
from pathlib import Path
from typing import Any, BinaryIO

import click

from tracer_async.capture import CaptureFormat, decode_chunks, read_capture
from tracer_async.cli.column_files import COLUMNS, NpzFile, ParquetFile
from tracer_async.cli.tally import Tally, counted
from tracer_async.errors import CaptureError
from tracer_async.protocol import CommandCode, Event, Frame, RealtimeData

__all__ = ["TableFormat", "export", "progress", "size_of"]

_LONG = 4 << 20


class TableFormat(StrEnum):
    """What readings are written in."""

    CSV = "csv"
    JSON = "json"
    NPZ = "npz"
    PARQUET = "parquet"

    @property
    def is_text(self) -> bool:
        """Whether it may go to a terminal."""
        return self in (TableFormat.CSV, TableFormat.JSON)


def export(
    file: BinaryIO, capture_format: CaptureFormat | None, table_format: TableFormat, path: Path | None, *, live: bool
) -> None:
    """Write the readings that *file* holds to *path*, or to standard output, and a summary to standard error.

    Rows of a *live* capture are written one by one. Raises CaptureError as `read_capture` does, with what stands before
    a wrong line written.
    """
    if table_format is TableFormat.PARQUET:
        ParquetFile.require()
    tally = Tally()
    broken: CaptureError | None = None
    with _opened(path) as out:
        try:
            if table_format.is_text:
                _write_rows(file, capture_format, table_format, out, tally, live=live)
            elif table_format is TableFormat.NPZ:
                _write_columns(file, capture_format, NpzFile(out, path.parent if path else None), tally)
            else:
                _write_columns(file, capture_format, ParquetFile(out), tally)
        except CaptureError as error:
            if not tally.bytes:
                raise
            broken = error
    click.echo(f"{counted(tally.readings, 'reading')} in {tally}", err=True)
    if broken is not None:
        raise broken


def _write_rows(
    file: BinaryIO,
    capture_format: CaptureFormat | None,
    table_format: TableFormat,
    out: BinaryIO,
    tally: Tally,
    *,
    live: bool,
) -> None:
    is_csv = table_format is TableFormat.CSV
    for captured in read_capture(file, capture_format):
        if is_csv and not tally.bytes:
            out.write(_csv_line(COLUMNS).encode())
        tally.count(captured)
        data = _reading(captured.event)
        if data is not None:
            tally.readings += 1
            values = {"offset": captured.offset, "sender": captured.sender or None, **data._asdict()}
            values["reserved"] = data.reserved.hex()
            out.write((_csv_row(values) if is_csv else json.dumps(values) + "\n").encode())
            if live:
                out.flush()


def _reading(event: Event) -> RealtimeData | None:
    if not isinstance(event, Frame) or event.command != CommandCode.READ_REALTIME:
        return None
    try:
        return RealtimeData.from_bytes(event.data)
    except ValueError:
        return None


def _csv_line(values: Iterable[Any]) -> str:
    line = StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def _csv_row(values: dict[str, Any]) -> str:
    return _csv_line(str(value).lower() if isinstance(value, bool) else value for value in values.values())


def _write_columns(
    file: BinaryIO, capture_format: CaptureFormat | None, table: NpzFile | ParquetFile, tally: Tally
) -> None:
    with closing(table) as columns:
        try:
            for chunk in decode_chunks(file, capture_format):
                tally.count_chunk(chunk)
                columns.write(chunk.readings, chunk.senders)
        except CaptureError:
            columns.finish()
            raise
        columns.finish()


@contextmanager
def _opened(path: Path | None) -> Iterator[BinaryIO]:
    """Open *path* for writing; a file that is there stays what it was until the new one is whole."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()  # before the summary
        return
    path = path.resolve()
    if path.exists() and not path.is_file():  # a device or a pipe cannot be replaced
        with path.open("wb") as out:
            yield out
        return
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as out:
            yield out
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def progress(file: BinaryIO, *, quiet: bool) -> Iterator[BinaryIO]:
    """Show on standard error how far a long file has been read, if that is a terminal, unless *quiet*."""
    size = size_of(file)
    if quiet or size is None or size < _LONG or not sys.stderr.isatty():
        yield file
        return
    from rich.console import Console
    from rich.progress import wrap_file

    with wrap_file(
        file, size, description="Decoding", console=Console(stderr=True), transient=True, refresh_per_second=4
    ) as followed:
        yield followed


def size_of(file: BinaryIO) -> int | None:
    """Return the size of a file, or None for what has none: a pipe, a terminal."""
    try:
        status = os.fstat(file.fileno())
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
