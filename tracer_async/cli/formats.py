"""A reading as text for programs: pure functions from a value to a line."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime

from tracer_async.protocol import RealtimeData

__all__ = [
    "CSV_HEADER",
    "FLAGS",
    "PLAIN_HEADER",
    "to_csv",
    "to_json",
    "to_line_protocol",
    "to_mapping",
    "to_plain",
    "utc",
]

FLAGS = {
    "charging": "charging",
    "battery_full": "full",
    "overload": "OVERLOAD",
    "load_short_circuit": "SHORT-CIRCUIT",
    "battery_over_voltage": "OVER-VOLTAGE",
    "over_discharge": "OVER-DISCHARGE",
}
"""Each flag but the load's switch, and its word; alarms are in capitals."""

# Without an alarm, a line has room on 80 columns.
_LINE_COLUMNS = (
    ("time", 20),
    ("bat_V", 5),
    ("pv_V", 5),
    ("chg_A", 5),
    ("chg_W", 6),
    ("load_A", 6),
    ("load_W", 6),
    ("temp_C", 6),
    ("load", 4),
    ("flags", 0),
)
PLAIN_HEADER = " ".join(f"{name:>{width}}" for name, width in _LINE_COLUMNS)

# A space, a comma or an equals sign would end the tag's value, and a backslash at its end would escape what follows.
_TAG_ESCAPES = str.maketrans({" ": r"\ ", ",": r"\,", "=": r"\=", "\n": r"\ ", "\\": "/"})


def utc(time: float, timespec: str = "milliseconds") -> str:
    """Return seconds since 1970 as RFC 3339."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec=timespec).removesuffix("+00:00") + "Z"


def to_mapping(data: RealtimeData) -> dict[str, float | bool | str]:
    """Return every field by its name and the derived powers; the reserved bytes in hexadecimal."""
    # Volts and amperes have two decimals each, so their product has four.
    powers = {"charge_power": round(data.charge_power, 4), "load_power": round(data.load_power, 4)}
    return {**data._asdict(), **powers, "reserved": data.reserved.hex()}


def to_json(address: str, time: float, data: RealtimeData) -> str:
    """Return one JSON object on one line."""
    return json.dumps({"time": utc(time), "address": address, **to_mapping(data)})


CSV_HEADER = ",".join(("time", "address", *to_mapping(RealtimeData.from_bytes(bytes(24)))))


def to_csv(address: str, time: float, data: RealtimeData) -> str:
    """Return a row to stand under `CSV_HEADER`."""
    row = io.StringIO()
    values = [str(value).lower() if isinstance(value, bool) else value for value in to_mapping(data).values()]
    csv.writer(row, lineterminator="").writerow([utc(time), address, *values])
    return row.getvalue()


def to_line_protocol(address: str, time: float, data: RealtimeData) -> str:
    """Return a point of InfluxDB's line protocol, its time in nanoseconds.

    The one reserved byte that moves is the integer field ``reserved_15``; the others are 0 on every known controller.
    """
    values = {**to_mapping(data), "reserved": data.reserved[2]}
    values["reserved_15"] = values.pop("reserved")
    fields = ",".join(f"{name}={_field(value)}" for name, value in values.items())
    # The clock is no better than microseconds.
    return f"tracer,address={address.translate(_TAG_ESCAPES)} {fields} {round(time * 1e6)}000"


def _field(value: float | bool | str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value}i" if isinstance(value, int) else str(value)


def to_plain(time: float, data: RealtimeData) -> str:
    """Return an aligned line to stand under `PLAIN_HEADER`: as many words as there are columns."""
    values = (
        utc(time, "seconds"),
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
