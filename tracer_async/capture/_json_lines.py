"""The JSON lines of captures and recordings: one record a line, written and read here only.

Three rules:

1. A line is complete in itself, so a damaged line costs no other one. What a line of a recording says is protected by a
   checksum: a changed digit would otherwise be another byte of the controller. A line without ``crc`` is not checked,
   so that a recording can be written and edited by hand.
2. In a recording, damaged lines are skipped and reported. A recording is recognized by its header, or by the times in
   its lines, because the header may be the damaged line.
3. The simple form ``{"from": "controller", "hex": "eb90..."}``, without header and times, is a capture that another
   program has written. A line of it that cannot be read is an error: it may be another kind of file.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

from tracer_async.errors import CaptureError

__all__ = [
    "Burst",
    "DamagedLine",
    "LinkChange",
    "MissingRecords",
    "Record",
    "RecordingHeader",
    "read_records",
    "split_lines",
    "to_line",
]

FORMAT = "tracer-async recording"
VERSION = 1

# Maximum bytes of a line with its end. A longer one is damaged: the limit bounds the memory for any file.
_MAX_LINE = 1 << 20
_TOO_LONG = f"it has more than {_MAX_LINE} bytes"
# Damaged lines before the first good one, after which the file is no recording.
_MAX_HELD = 1000
# Largest number of seconds: a time of the year 3000. Later ones are damage, and not every system can show them.
_MAX_SECONDS = 32503680000.0

_CRC_FIELD = ', "crc": "{:08x}"}}'
_CRC_SIZE = len(_CRC_FIELD.format(0))


class RecordingHeader(NamedTuple):
    """The first line of a recording. If a recorder was started again on the same file, each start has one."""

    recorded: str
    """What was recorded: the URL of a client's controller."""
    kind: str = "client"
    """Who recorded: ``client``, with what it sent and received, or ``listener``, which sent nothing."""
    started: str = ""
    """When: ISO 8601, UTC."""
    by: str = ""
    """The program and its version."""
    timeout: float | None = None
    """Seconds that the recorded client waited for an answer. A reply that came after that was late."""


class Burst(NamedTuple):
    """Bytes that were sent or received at one moment."""

    sender: str
    """``client`` or ``controller``. Captures of other programs have names of their own."""
    data: bytes
    t: float | None = None
    """Seconds since the header, of a clock that never jumps. None in a capture without times."""
    time: float | None = None
    """Seconds since 1970, UTC. None in a capture without times."""


class LinkChange(NamedTuple):
    """The connection was established or lost."""

    up: bool
    t: float
    time: float
    by_client: bool = False
    """Whether the recorded client closed it. Otherwise the other side did, or the link failed."""
    cause: str = ""
    """Why it was lost, as far as known."""


class MissingRecords(NamedTuple):
    """The recorder could not write some records here: the disk was full or too slow."""

    number: int
    """How many."""
    t: float
    time: float


class DamagedLine(NamedTuple):
    """A line that cannot be read."""

    number: int
    """Its number in the file, from 1."""
    reason: str


Record: TypeAlias = RecordingHeader | Burst | LinkChange | MissingRecords


# Writing


def to_line(record: Record) -> bytes:
    """Return a record as a line, with its checksum and line end."""
    body = json.dumps(_fields(record))[:-1]
    return f"{body}{_CRC_FIELD.format(zlib.crc32(body.encode()))}\n".encode()


def _fields(record: Record) -> dict[str, Any]:
    match record:
        case RecordingHeader():
            return {"format": FORMAT, "version": VERSION, **record._asdict()}
        case Burst(sender, data, t, time):
            times = {} if t is None or time is None else {"t": round(t, 6), "time": round(time, 6)}
            return {**times, "from": sender, "hex": data.hex()}
        case LinkChange(up, t, time, by_client, cause):
            event: dict[str, Any] = {"t": round(t, 6), "time": round(time, 6), "event": "up" if up else "down"}
            return event if up else {**event, "by": "client" if by_client else "other side", "cause": cause}
        case MissingRecords(number, t, time):
            return {"t": round(t, 6), "time": round(time, 6), "event": "missing", "number": number}


# Reading


def split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file that is read in *chunks*.

    Each line but an unfinished last one has its line end. The end of a line of more than 1 MiB may be missing. What is
    left of it is longer than `_MAX_LINE` too, so `read_records` reports it as damaged.
    """
    rest = b""
    skipping = False
    for chunk in chunks:
        *lines, last = chunk.split(b"\n")
        if skipping and lines:
            del lines[0]
            skipping = False
        for line in lines:
            yield rest + line + b"\n"
            rest = b""
        if not skipping:
            rest += last
        if len(rest) > _MAX_LINE:
            yield rest
            rest = b""
            skipping = True
    if rest:
        yield rest


def read_records(lines: Iterable[bytes]) -> Iterator[Record | DamagedLine]:
    """Yield the records of a capture or recording, and the damaged lines of a recording.

    Raises CaptureError for an invalid line of a capture that is no recording, after the records before it, and for a
    recording of a newer version.
    """
    is_recording: bool | None = None
    held: list[DamagedLine] = []
    for number, line in enumerate(lines, 1):
        if len(line) <= _MAX_LINE and not line.strip():
            continue
        try:
            record = _parse(line)
        # The line may be any JSON value, and the object may have any types: all of that is one kind of damage.
        except (ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError) as error:
            if isinstance(error, CaptureError):
                raise
            damaged = DamagedLine(number, _reason(line, error))
            if is_recording:
                yield damaged
            else:
                held.append(damaged)
            if is_recording is False or len(held) > _MAX_HELD:
                raise _invalid(held[0]) from None
            continue
        if is_recording is None:
            is_recording = not isinstance(record, Burst) or record.t is not None
            if held and not is_recording:
                raise _invalid(held[0])
            yield from held
            held.clear()
        yield record
    if held:
        raise _invalid(held[0])


def _invalid(damaged: DamagedLine) -> CaptureError:
    if damaged.reason == _TOO_LONG:
        return CaptureError(f"not a capture: line {damaged.number} has more than {_MAX_LINE} bytes")
    return CaptureError(f'line {damaged.number} is not of the form {{"from": "controller", "hex": "eb90..."}}')


def _reason(line: bytes, error: Exception) -> str:
    if len(line) > _MAX_LINE:
        return _TOO_LONG
    if not line.endswith(b"\n"):
        return "its end is missing"
    return str(error) if isinstance(error, _ChecksumError) else "it is not a line of a recording"


class _ChecksumError(ValueError):
    pass


def _parse(line: bytes) -> Record:
    if len(line) > _MAX_LINE:
        raise ValueError
    fields = json.loads(line)
    crc = fields.get("crc")
    if crc is not None and crc != f"{zlib.crc32(line.rstrip()[:-_CRC_SIZE]):08x}":
        raise _ChecksumError("its checksum is wrong")
    if "format" in fields:
        return _header(fields)
    if "event" in fields:
        return _event(fields)
    sender = fields.get("from", "")
    if not isinstance(sender, str):
        raise TypeError
    data = bytes.fromhex(fields["hex"])
    if "t" not in fields:
        return Burst(sender, data)
    return Burst(sender, data, _number(fields, "t"), _number(fields, "time"))


def _header(fields: dict[str, Any]) -> RecordingHeader:
    if fields["format"] != FORMAT:
        raise ValueError
    version = fields["version"]
    if type(version) is not int:
        raise TypeError
    if version > VERSION:
        raise CaptureError(f"the recording has version {version}, and this program reads version {VERSION}: update it")
    recorded, kind, started, by = (str(fields.get(name, "")) for name in ("recorded", "kind", "started", "by"))
    timeout = None if fields.get("timeout") is None else _number(fields, "timeout")
    return RecordingHeader(recorded, kind, started, by, timeout)


def _event(fields: dict[str, Any]) -> LinkChange | MissingRecords:
    t, time = _number(fields, "t"), _number(fields, "time")
    match fields["event"]:
        case "up":
            return LinkChange(up=True, t=t, time=time)
        case "down":
            return LinkChange(False, t, time, fields.get("by") == "client", str(fields.get("cause", "")))
        case "missing":
            return MissingRecords(int(fields["number"]), t, time)
    raise ValueError


def _number(fields: dict[str, Any], name: str) -> float:
    number = fields[name]
    least = -_MAX_SECONDS if name == "t" else 0.0
    if type(number) not in (int, float) or not least <= number <= _MAX_SECONDS:
        raise ValueError
    return float(number)
