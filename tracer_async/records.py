"""Readings as records: the same names, units and rounding in every format for programs.

docs/output.md lists the fields: ``time``, ``address``, ``ok``, then ``age`` and those of `RealtimeData.to_dict`, or
``error`` where there is no reading. The command and the gateway use them. Pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime

from tracer_async.client.reading import Reading
from tracer_async.protocol import RealtimeData

__all__ = ["DATA_FIELDS", "Value", "line_protocol_point", "rounded_age", "to_record", "utc"]

Value = float | bool | str | None
"""What a field of a record can be; None is unknown."""

DATA_FIELDS = tuple(RealtimeData.from_bytes(bytes(24)).to_dict())
"""The names of `RealtimeData.to_dict`, in its order."""


def utc(time: float) -> str:
    """Return seconds since 1970 as ISO 8601 in UTC, for programs: 2026-06-01T10:00:00.250Z."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def to_record(address: str, reading: Reading) -> dict[str, Value]:
    """Return a reading, or the error instead of it, with the fields that every format has."""
    record: dict[str, Value] = {"time": utc(reading.time), "address": address, "ok": reading.ok}
    if reading.data is None:
        return record | {"age": None, "error": str(reading.error)}
    return record | {"age": rounded_age(reading.age), **reading.data.to_dict()}


def rounded_age(age: float) -> float | None:
    """Return a maximum age in seconds, rounded up to 0.001; None if it is unknown, which is infinite."""
    # Rounded up: the measurement is not older than this. JSON has no infinity.
    return math.ceil(age * 1000) / 1000 if math.isfinite(age) else None


_TAG_ESCAPES = str.maketrans({" ": r"\ ", ",": r"\,", "=": r"\="})
_STRING_ESCAPES = str.maketrans({'"': r"\"", "\\": r"\\", "\n": " "})


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
