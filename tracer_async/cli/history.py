"""``tracer-async history``: what the gateway has recorded, as a file."""

from __future__ import annotations

import asyncio
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, date, datetime, tzinfo
from pathlib import Path
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo

import click

from tracer_async.cli.config_errors import config_errors_reported
from tracer_async.cli.formats import csv_line
from tracer_async.cli.options import output_option, verbose_option
from tracer_async.cli.output_file import opened
from tracer_async.errors import MissingExtraError

__all__ = ["history"]

_KINDS = ("readings", "five-minutes", "days")
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


@click.group(short_help="Export what the gateway has recorded.")
def history() -> None:
    """Use the history that the gateway has recorded."""


@history.command()
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path), metavar="CONFIG.toml")
@click.option("--controller", "name", required=True, metavar="NAME", help="Name of the controller in CONFIG.toml.")
@click.option("--from", "start", metavar="TIME", help="Leave out what is older than TIME.")
@click.option("--to", "end", metavar="TIME", help="Leave out what is from TIME or later.")
@click.option(
    "--rows",
    "kind",
    type=click.Choice(_KINDS),
    default=_KINDS[0],
    show_default=True,
    help="What to export: each reading; minimum, mean and maximum of five minutes, except of the last hour; "
    "or the energy of days.",
)
@click.option(
    "-f",
    "--format",
    "form",
    type=click.Choice(["csv", "parquet", "jsonl"]),
    default="csv",
    show_default=True,
    help="Format of the output.",
)
@output_option
@verbose_option
@click.pass_context
def export(
    ctx: click.Context,
    config: Path,
    *,
    name: str,
    start: str | None,
    end: str | None,
    kind: str,
    form: str,
    path: Path | None,
) -> None:
    """Export the history of a controller. The gateway may run meanwhile.

    \b
    TIME is a day or a time, such as
      2026-06-01                   the beginning of the day
      2026-06-01T10:00             in the time zone of CONFIG.toml
      2026-06-01T10:00:00+02:00    with its own offset from UTC; Z means UTC

    \b
    The output is one of
      csv      a header, and a line for each row
      jsonl    a JSON object for each row, a line each
      parquet  for pandas or Polars (extra: parquet)

    Times are in UTC, days are those of the gateway. The units are V, A, W, Wh, degrees Celsius and s.
    """  # noqa: D301  # click's mark, not an escape sequence of this text
    try:
        from tracer_async.gateway.config_file import load_config
        from tracer_async.gateway.history.export import FIELDS, Kind
        from tracer_async.gateway.history.export import export as exported
    except ModuleNotFoundError as error:
        raise MissingExtraError("the history", "gateway") from error
    if form == "parquet" and path is None and sys.stdout.isatty():
        raise click.UsageError("Standard output is a terminal, and Parquet is binary: add --output FILE.")
    with config_errors_reported(ctx, "the history"):
        settings = load_config(config)
    if settings.history is None:
        raise click.UsageError(f"{config} has no section [history].")
    if name not in settings.controllers:
        raise click.BadParameter(f"{name} is none of {', '.join(settings.controllers)}.", param_hint="'--controller'")
    zone = None if settings.time_zone is None else ZoneInfo(settings.time_zone)
    chunks = exported(
        settings.history,
        settings.state_directory,
        settings.controllers[name].id or name,
        kind=Kind(kind),
        start=_FIRST if start is None else _time(start, zone, "--from"),
        end=_LAST if end is None else _time(end, zone, "--to"),
    )

    async def write(out: BinaryIO) -> int:
        count = 0
        with closing(_FORMATS[form](out, FIELDS[Kind(kind)])) as table:
            async for rows in chunks:
                table.write(rows)
                count += len(rows)
            table.finish()
        return count

    with opened(path) as out:
        count = asyncio.run(write(out))
    click.echo(f"{count:,} row{'' if count == 1 else 's'}", err=True)


def _time(text: str, zone: tzinfo | None, option: str) -> datetime:
    """Return the time that *text* names, in *zone* if it has no offset, but none before 1970 or after 9998.

    Raises BadParameter.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a time. Write 2026-06-01 or 2026-06-01T10:00.", param_hint=f"'{option}'"
        ) from None
    # There are no readings outside, and a time near the limits of `datetime` may have none in another zone.
    about = time.replace(tzinfo=time.tzinfo or UTC)
    if not _FIRST < about < _LAST:
        return _FIRST if about <= _FIRST else _LAST
    if time.tzinfo is not None:
        return time.astimezone(zone)
    return time.astimezone() if zone is None else time.replace(tzinfo=zone)


class _Table(ABC):
    """A file of rows with *fields* and their types."""

    def __init__(self, out: BinaryIO, fields: Mapping[str, type]) -> None:
        self.out = out
        self.fields = fields

    @abstractmethod
    def write(self, rows: list[dict[str, Any]]) -> None:
        """Add rows."""

    def finish(self) -> None:  # noqa: B027  # optional
        """Write the end of the file."""

    def close(self) -> None:  # noqa: B027  # optional
        """Discard what has not been written yet."""


class _Csv(_Table):
    _has_header = False

    def write(self, rows: list[dict[str, Any]]) -> None:
        # Not earlier: an error that comes before the first row leaves no output.
        lines = [] if self._has_header else [csv_line(self.fields)]
        self._has_header = True
        lines += [csv_line(map(_plain, row.values())) for row in rows]
        self.out.write("".join(f"{line}\n" for line in lines).encode())

    def finish(self) -> None:
        self.write([])


class _JsonLines(_Table):
    def write(self, rows: list[dict[str, Any]]) -> None:
        self.out.write("".join(f"{json.dumps(row, default=_plain)}\n" for row in rows).encode())


class _Parquet(_Table):
    def __init__(self, out: BinaryIO, fields: Mapping[str, type]) -> None:
        super().__init__(out, fields)
        try:
            import pyarrow as pa
            from pyarrow import parquet
        except ImportError as error:
            raise MissingExtraError("writing Parquet", "parquet") from error
        types = {datetime: pa.timestamp("ms", "UTC"), date: pa.date32(), float: pa.float64(), int: pa.int64()}
        types |= {bool: pa.bool_(), str: pa.string()}
        self._schema = pa.schema([(name, types[type_]) for name, type_ in fields.items()])
        self._make = pa.Table.from_pylist
        self._writer = parquet.ParquetWriter(out, self._schema)

    def write(self, rows: list[dict[str, Any]]) -> None:
        self._writer.write_table(self._make(rows, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


_FORMATS: dict[str, type[_Table]] = {"csv": _Csv, "jsonl": _JsonLines, "parquet": _Parquet}


def _plain(value: Any) -> Any:
    """Return a time or a day as text, and another value as it is."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date) else value
