"""The record types of a decoded capture, and the functions that fill them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracer_async.protocol import SYNC, CommandCode

__all__ = ["DAMAGE", "ROWS", "Bytes", "Places", "frames_at", "readings_of", "replies_of", "runs_at"]

Bytes: TypeAlias = NDArray[np.uint8]
Places: TypeAlias = NDArray[np.intp]

ROWS = 1 << 13
"""Number of records that are processed at a time. This many fit into the cache of a processor."""

_OFFSET, _SENDER = ("offset", np.int64), ("sender", np.uint8)
_FRAME = np.dtype(
    [_OFFSET, _SENDER, ("controller_id", np.uint8), ("command", np.uint8), ("length", np.uint8)], align=True
)
_REPLY = np.dtype([_OFFSET, _SENDER, ("data", "V24")], align=True)
DAMAGE = np.dtype([_OFFSET, _SENDER, ("kind", np.uint8), ("size", np.int32)], align=True)

# The fields of an A0 reply: name in `RealtimeData`, offset, type on the wire, and type in the result.
_FIELDS: tuple[tuple[str, int, str, type], ...] = (
    ("battery_voltage", 0, "<u2", np.float64),
    ("pv_voltage", 2, "<u2", np.float64),
    ("load_current", 6, "<u2", np.float64),
    ("over_discharge_voltage", 8, "<u2", np.float64),
    ("battery_full_voltage", 10, "<u2", np.float64),
    ("charge_current", 21, "<u2", np.float64),
    ("battery_temperature", 20, "u1", np.int16),
    ("load_on", 12, "?", np.bool_),
    ("overload", 13, "?", np.bool_),
    ("load_short_circuit", 14, "?", np.bool_),
    ("battery_over_voltage", 16, "?", np.bool_),
    ("over_discharge", 17, "?", np.bool_),
    ("battery_full", 18, "?", np.bool_),
    ("charging", 19, "?", np.bool_),
)
_RESERVED = tuple((f"reserved_{offset}", offset, "u1", np.uint8) for offset in (4, 5, 15, 23))
_WIRE = np.dtype(
    {
        "names": [name for name, *_ in _FIELDS + _RESERVED],
        "formats": [form for _, _, form, _ in _FIELDS + _RESERVED],
        "offsets": [offset for _, offset, _, _ in _FIELDS + _RESERVED],
        "itemsize": 24,
    }
)
# Wide fields first: with this order a record has 72 bytes and almost no padding.
_READING = np.dtype(
    [
        _OFFSET,
        *((name, kind) for name, _, _, kind in _FIELDS),
        _SENDER,
        ("reserved", np.uint8, (len(_RESERVED),)),
    ],
    align=True,
)
# A mask for bytes 12 to 19. A flag is 0 or 1, so its other bits must be 0. Byte 15 is reserved and has any value.
_NO_FLAG = np.frombuffer(b"\xfe\xfe\xfe\0\xfe\xfe\xfe\xfe", np.uint32)


def runs_at(view: Bytes, places: Places, size: int) -> NDArray[np.void]:
    """Return the *size* bytes that start at each of *places*."""
    # In this view every byte is the start of an element of *size* bytes. NumPy copies whole elements quickly.
    return np.ndarray((max(0, len(view) - size + 1),), f"V{size}", view, strides=(1,))[places]


def frames_at(view: Bytes, start: Places) -> NDArray[np.void]:
    """Return the headers of the frames that start at *start*."""
    frames = np.empty(len(start), _FRAME)
    frames["offset"] = start
    for index, name in enumerate(("controller_id", "command", "length"), len(SYNC)):
        frames[name] = view[start + index]
    return frames


def replies_of(view: Bytes, frames: NDArray[np.void]) -> NDArray[np.void]:
    """Return the data of the frames that `RealtimeData.from_bytes` accepts."""
    is_reply = (frames["command"] == CommandCode.READ_REALTIME) & (frames["length"] == _WIRE.itemsize)
    start = frames["offset"][is_reply]
    data = runs_at(view, start + len(SYNC) + 3, _WIRE.itemsize)
    words = data.view(np.uint32).reshape(-1, _WIRE.itemsize // 4)
    valid = (words[:, 3] & _NO_FLAG[0] | words[:, 4] & _NO_FLAG[1]) == 0
    if not valid.all():
        start, data = start[valid], data[valid]
    replies = np.empty(len(data), _REPLY)
    replies["offset"] = start
    replies["data"] = data
    return replies


def readings_of(replies: NDArray[np.void]) -> NDArray[np.void]:
    """Decode the data of replies."""
    readings = np.empty(len(replies), _READING)
    for at in range(0, len(replies), ROWS):
        some, into = replies[at : at + ROWS], readings[at : at + ROWS]
        into["offset"] = some["offset"]
        into["sender"] = some["sender"]
        data = some["data"].view(_WIRE)
        for name, _, _, kind in _FIELDS:
            if kind is np.float64:
                np.divide(data[name], 100, out=into[name])
            else:
                into[name] = data[name]
        into["battery_temperature"] -= 30
        for index, (name, *_) in enumerate(_RESERVED):
            into["reserved"][:, index] = data[name]
    return readings
