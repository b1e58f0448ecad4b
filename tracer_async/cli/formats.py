"""Readings as text: JSON, CSV and line protocol for programs, aligned lines for people. Pure functions.

Every format has the same fields, which docs/output.md lists: ``time``, ``address``, ``ok``, then ``age`` and those of
`RealtimeData.to_dict`, or ``error`` where there is no reading.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum

from tracer_async import Reading
from tracer_async.protocol import RealtimeData

__all__ = [
    "CSV_HEADER",
    "DATA_FIELDS",
    "FLAGS",
    "PLAIN_HEADER",
    "TO_LINE",
    "Format",
    "Value",
    "csv_line",
    "line_protocol_point",
    "local",
    "rounded_age",
    "to_csv",
    "to_json",
    "to_line_protocol",
    "to_plain",
    "to_record",
    "utc",
]

Value = float | bool | str | None


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

DATA_FIELDS = tuple(RealtimeData.from_bytes(bytes(24)).to_dict())
"""The names of `RealtimeData.to_dict`, in its order."""

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


# Times


def utc(time: float) -> str:
    """Return seconds since 1970 as ISO 8601 in UTC, for programs: 2026-06-01T10:00:00.250Z."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def local(time: float, separator: str = "T") -> str:
    """Return seconds since 1970 as ISO 8601 in local time with its offset, for people: 2026-06-01T12:00:00+02:00."""
    return datetime.fromtimestamp(time, UTC).astimezone().isoformat(separator, "seconds")


# Programs


def to_record(address: str, reading: Reading) -> dict[str, Value]:
    """Return a reading, or the error instead of it, with the fields that every format has."""
    record: dict[str, Value] = {"time": utc(reading.time), "address": address, "ok": reading.ok}
    if reading.data is None:
        return record | {"age": None, "error": str(reading.error)}
    return record | {"age": rounded_age(reading), **reading.data.to_dict()}


def rounded_age(reading: Reading) -> float | None:
    """Return the maximum age in seconds, rounded up to 0.001; None if it is unknown."""
    # Rounded up: the measurement is not older than this. JSON has no infinity.
    return math.ceil(reading.age * 1000) / 1000 if math.isfinite(reading.age) else None


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


_TAG_ESCAPES = str.maketrans({" ": r"\ ", ",": r"\,", "=": r"\="})
_STRING_ESCAPES = str.maketrans({'"': r"\"", "\\": r"\\", "\n": " "})


def to_line_protocol(address: str, reading: Reading) -> str:
    """Return a point of InfluxDB's line protocol: the address as the tag, the other fields, the time in nanoseconds."""
    record = to_record(address, reading)
    del record["time"], record["address"]
    return line_protocol_point({"address": address}, record, reading.time)


def line_protocol_point(tags: Mapping[str, str], fields: Mapping[str, Value], time: float) -> str:
    """Return one line of InfluxDB's line protocol, of the measurement ``tracer``. Fields that are None are left out."""
    key = ",".join(("tracer", *(f"{name}={_tag(value)}" for name, value in tags.items())))
    values = ",".join(f"{name}={_field(value)}" for name, value in fields.items() if value is not None)
    # The clock is no better than microseconds.
    return f"{key} {values} {round(time * 1e6)}000"


def _tag(address: str) -> str:
    # A backslash is an ordinary character in a tag, unless it stands at the end, where it would escape the space
    # behind the tag. An address is a URL, so the last one can be written in hexadecimal.
    text = address.translate(_TAG_ESCAPES)
    return f"{text[:-1]}%5C" if text.endswith("\\") else text


def _field(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value.translate(_STRING_ESCAPES)}"'
    return f"{value}i" if isinstance(value, int) else str(value)


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
