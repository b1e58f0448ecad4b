"""Readings as text: JSON, CSV and line protocol for programs, aligned lines for people. Pure functions.

Every format has the fields of `tracer_async.records`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from enum import StrEnum

from tracer_async import Reading
from tracer_async.protocol import RealtimeData
from tracer_async.records import DATA_FIELDS, Value, line_protocol_point, to_record

__all__ = [
    "CSV_HEADER",
    "FLAGS",
    "PLAIN_HEADER",
    "TO_LINE",
    "Format",
    "csv_line",
    "local",
    "printable",
    "to_csv",
    "to_json",
    "to_line_protocol",
    "to_plain",
]


class Format(StrEnum):
    """The formats of the output. Each command has some of them."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"
    LINE_PROTOCOL = "line-protocol"
    PARQUET = "parquet"


FLAGS = {
    "charging": "charging",
    "battery_full": "full",
    "overload": "OVERLOAD",
    "load_short_circuit": "SHORT-CIRCUIT",
    "battery_over_voltage": "OVER-VOLTAGE",
    "over_discharge": "OVER-DISCHARGE",
}
"""Each flag except the load switch, and its word. Alarms are in capitals."""

_RECORD_FIELDS = ("time", "address", "ok", "age", *DATA_FIELDS, "error")

# A line with the flag "charging" and no alarm has 80 columns.
_LINE_COLUMNS = (
    ("time", 25),
    ("bat_V", 5),
    ("pv_V", 5),
    ("chg_A", 5),
    ("chg_W", 5),
    ("ld_A", 5),
    ("ld_W", 5),
    ("degC", 4),
    ("load", 4),
    ("flags", 0),
)
PLAIN_HEADER = " ".join(f"{name:>{width}}" for name, width in _LINE_COLUMNS)


# Text of a file or of another machine


def printable(text: str) -> str:
    """Return *text* with ``?`` for each control character: none of them may reach the terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


# Times


def local(time: float, separator: str = "T") -> str:
    """Return seconds since 1970 as ISO 8601 in local time with its offset, for people: 2026-06-01T12:00:00+02:00."""
    return datetime.fromtimestamp(time, UTC).astimezone().isoformat(separator, "seconds")


# Programs


def to_json(address: str, reading: Reading) -> str:
    """Return one JSON object on one line."""
    return json.dumps(to_record(address, reading))


CSV_HEADER = ",".join(_RECORD_FIELDS)


def to_csv(address: str, reading: Reading) -> str:
    """Return a row to stand under `CSV_HEADER`. Without a reading the columns of its fields are empty."""
    record = to_record(address, reading)
    return csv_line(record.get(name) for name in _RECORD_FIELDS)


def csv_line(values: Iterable[Value]) -> str:
    """Return one row of CSV without its line end. Flags are true and false, None is empty."""
    line = io.StringIO()
    row = (str(value).lower() if isinstance(value, bool) else value for value in values)
    csv.writer(line, lineterminator="").writerow(row)
    return line.getvalue()


def to_line_protocol(address: str, reading: Reading) -> str:
    """Return a point of InfluxDB's line protocol: the address as the tag, the other fields, the time in nanoseconds."""
    record = to_record(address, reading)
    del record["time"], record["address"]
    return line_protocol_point({"address": address}, record, reading.time)


TO_LINE: dict[Format, Callable[[str, Reading], str]] = {
    Format.JSON: to_json,
    Format.CSV: to_csv,
    Format.LINE_PROTOCOL: to_line_protocol,
}
"""What makes a line of a reading, or of the error instead of it, for a program."""


# People


def to_plain(time: float, data: RealtimeData) -> str:
    """Return an aligned line to stand under `PLAIN_HEADER`: as many words as there are columns."""
    values = (
        local(time),
        f"{data.battery_voltage:.2f}",
        f"{data.pv_voltage:.2f}",
        f"{data.charge_current:.2f}",
        f"{data.charge_power:.1f}",
        f"{data.load_current:.2f}",
        f"{data.load_power:.1f}",
        f"{data.battery_temperature}",
        "on" if data.load_on else "off",
        ",".join(word for name, word in FLAGS.items() if getattr(data, name)) or "-",
    )
    return " ".join(f"{value:>{width}}" for value, (_, width) in zip(values, _LINE_COLUMNS, strict=True))
