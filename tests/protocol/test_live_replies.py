"""Replies of live controllers, as a table of facts: `live_replies.csv`.

The table was not made with this library. Each row has the measured values, the reserved bytes and the CRC that the
controller itself computed. So the CRC shows that an encoded row is, to the byte, what was on the wire.

Sources: "day" and "night" are distinct replies from two recordings of live controllers, one by day with their MT-5
meter (214 replies), one under a dark panel (356 replies). "other owner" is a reply that another owner published.
"document" is the example in the maker's document, version 3. `test_captures.py` tests the recordings themselves, where
they are available.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from tracer_async.protocol import Frame, FrameDecoder, RealtimeData, crc16

with (Path(__file__).parent / "live_replies.csv").open(encoding="utf-8", newline="") as _file:
    ROWS = list(csv.DictReader(_file))

VOLTS_AND_AMPERES = (
    "battery_voltage",
    "pv_voltage",
    "load_current",
    "over_discharge_voltage",
    "battery_full_voltage",
    "charge_current",
)
FLAGS = (
    "load_on",
    "overload",
    "load_short_circuit",
    "battery_over_voltage",
    "over_discharge",
    "battery_full",
    "charging",
)

every_reply = pytest.mark.parametrize("row", ROWS, ids=[f"{row['source']} {row['crc']}" for row in ROWS])


def hundredths(text: str) -> bytes:
    """Volts or amperes as two bytes, little-endian, without any arithmetic on floats."""
    return int(text.replace(".", "")).to_bytes(2, "little")


def data_of(row: dict[str, str]) -> bytes:
    """The 24 data bytes, by the offsets of the document's table."""
    reserved = bytes.fromhex(row["reserved"])
    flags = {name: bytes([int(row[name])]) for name in FLAGS}
    return b"".join(
        (
            hundredths(row["battery_voltage"]),  # offset 0
            hundredths(row["pv_voltage"]),  # 2
            reserved[:2],  # 4
            hundredths(row["load_current"]),  # 6
            hundredths(row["over_discharge_voltage"]),  # 8
            hundredths(row["battery_full_voltage"]),  # 10
            flags["load_on"],  # 12
            flags["overload"],
            flags["load_short_circuit"],
            reserved[2:3],  # 15
            flags["battery_over_voltage"],
            flags["over_discharge"],
            flags["battery_full"],
            flags["charging"],
            bytes([int(row["battery_temperature"]) + 30]),  # 20
            hundredths(row["charge_current"]),  # 21
            reserved[3:],  # 23
        )
    )


def wire_bytes(row: dict[str, str]) -> bytes:
    controller_id = b"\x16" if row["source"] == "document" else b"\x00"
    return (
        bytes.fromhex("EB90EB90EB90") + controller_id + b"\xa0\x18" + data_of(row) + bytes.fromhex(row["crc"]) + b"\x7f"
    )


def test_the_table_has_twenty_distinct_replies_by_day_and_by_night() -> None:
    assert len({wire_bytes(row) for row in ROWS}) == len(ROWS) >= 20
    assert {row["source"] for row in ROWS} == {"day", "night", "other owner", "document"}
    assert len({row["reserved"] for row in ROWS}) >= 10


@every_reply
def test_the_crc_is_that_of_the_controller(row: dict[str, str]) -> None:
    wire = wire_bytes(row)
    assert crc16(wire[6:-3]) == int(row["crc"], 16)


@every_reply
def test_a_reply_is_decoded_to_the_values_in_the_table(row: dict[str, str]) -> None:
    (frame,) = FrameDecoder().feed(wire_bytes(row))
    assert isinstance(frame, Frame)
    data = RealtimeData.from_bytes(frame.data)
    for name in VOLTS_AND_AMPERES:
        assert getattr(data, name) == float(row[name]), name
    for name in FLAGS:
        assert getattr(data, name) is (row[name] == "1"), name
    assert data.battery_temperature == int(row["battery_temperature"])
    assert data.reserved.hex() == row["reserved"]


@every_reply
def test_the_values_in_the_table_are_encoded_to_the_bytes_on_the_wire(row: dict[str, str]) -> None:
    values: dict[str, Any] = {
        **{name: float(row[name]) for name in VOLTS_AND_AMPERES},
        **{name: row[name] == "1" for name in FLAGS},
        "battery_temperature": int(row["battery_temperature"]),
        "reserved": bytes.fromhex(row["reserved"]),
    }
    data = RealtimeData(**values)
    wire = wire_bytes(row)
    assert Frame(wire[6], 0xA0, data.to_bytes()).encode(start_up=False) == wire


def test_all_replies_in_one_stream_are_found() -> None:
    stream = b"".join(map(wire_bytes, ROWS))
    decoder = FrameDecoder()
    frames = [event for at in range(0, len(stream), 7) for event in decoder.feed(stream[at : at + 7])]
    assert [frame.data for frame in frames if isinstance(frame, Frame)] == list(map(data_of, ROWS))
    assert decoder.stats == (len(ROWS), 0, 0, 0)


@pytest.mark.parametrize(
    ("name", "source", "replies"),
    [("controller-to-display.bin", "day", 214), ("controller-night.bin", "night", 356)],
)
def test_the_table_agrees_with_the_recordings(name: str, source: str, replies: int) -> None:
    path = Path(__file__).parents[3] / "shared" / "captures" / name
    if not path.exists():
        pytest.skip("the recordings are not available")
    recorded = path.read_bytes()
    assert recorded.count(bytes.fromhex("EB90EB90EB90")) == replies
    assert all(wire_bytes(row) in recorded for row in ROWS if row["source"] == source)
