"""Captures decoded in bulk: every frame at once, into NumPy arrays, instead of one event after the other.

What is found is what `read_capture` finds, to the byte. NumPy, of the extra ``bulk``, is imported when it is needed.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from tracer_async.capture._events import CapturedEvent, CaptureFormat, proved, read_bursts
from tracer_async.capture._kinds import KINDS
from tracer_async.errors import CaptureError, MissingExtraError
from tracer_async.protocol import CorruptFrame, DecoderStats, Noise, Reason
from tracer_async.protocol._numbers import check_whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tracer_async.capture._scan import Found, Sender

__all__ = ["Capture", "Source", "decode_capture", "decode_chunks"]

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
"""A path, the bytes of a capture, or a file open in binary mode; a pipe will do."""

# As many bytes as stay in a processor's cache together with all that is made of them.
_CHUNK = 1 << 18


@dataclass(frozen=True, eq=False, slots=True)
class Capture:
    """A capture, or the next chunk of one, as arrays of records; a record's fields are columns.

    Every byte of the capture is in exactly one record of ``frames`` or of ``damage``. In each record ``offset`` says
    where it begins, in bytes from the start of the capture, counted for each sender on its own; ``sender`` is an index
    into `senders`.
    """

    senders: tuple[str, ...]
    """Who sent the bytes, as the capture says; one empty name where it does not."""
    readings: NDArray[np.void]
    """The replies to A0: ``offset``, ``sender`` and the fields of `RealtimeData`, in the same units: float64 volts and
    amperes, bool flags, int16 degrees Celsius, four uint8 of reserved bytes."""
    frames: NDArray[np.void]
    """All good frames, replies to A0 too: ``offset``, ``sender``, ``controller_id``, ``command``, and the ``length`` of
    the data."""
    damage: NDArray[np.void]
    """Damaged frames and noise: ``offset``, ``sender``, ``kind``, an index into `KINDS`, and ``size`` in bytes."""
    damaged_bytes: bytes
    """The bytes of all records of damage, in their order."""

    @property
    def stats(self) -> DecoderStats:
        """The counters of `FrameDecoder`, for these bytes."""
        size, corrupt = self.damage["size"], self.damage["kind"] > 0
        corrupt_bytes = int(size.sum(where=corrupt))
        return DecoderStats(
            len(self.frames), int(corrupt.sum()), corrupt_bytes, int(size.sum(dtype="int64")) - corrupt_bytes
        )

    def events(self) -> Iterator[CapturedEvent]:
        """Yield damaged frames and noise as `read_capture` does, and no good frames."""
        at = 0
        for offset, sender, kind, size in self.damage.tolist():
            raw = self.damaged_bytes[at : at + size]
            at += size
            event = CorruptFrame(raw, Reason(KINDS[kind])) if kind else Noise(raw)
            yield CapturedEvent(offset, self.senders[sender], event)


def decode_capture(source: Source, capture_format: CaptureFormat | None = None) -> Capture:
    """Decode a capture that fits into memory. Its format is found out unless it is given.

    Raises CaptureError for what is no capture, as `read_capture` does, and MissingExtraError without NumPy.
    """
    senders, replies, frames, damage, damaged_bytes = zip(*_decode(source, capture_format, _CHUNK), strict=True)
    # The replies are decoded when they are together, so that the wide records are made only once.
    return Capture(senders[-1], _readings(_joined(replies)), _joined(frames), _joined(damage), b"".join(damaged_bytes))


def decode_chunks(
    source: Source, capture_format: CaptureFormat | None = None, *, chunk_size: int = _CHUNK
) -> Iterator[Capture]:
    """Decode a capture of any size in bounded memory: yield what each *chunk_size* bytes complete, sender by sender.

    Raises what `decode_capture` does; CaptureError for a line of text that is not what the format says comes after all
    that stands before it has been yielded.
    """
    return map(_capture, _decode(source, capture_format, check_whole("chunk_size", chunk_size)))


def _capture(found: Found) -> Capture:
    return Capture(found.senders, _readings(found.replies), found.frames, found.damage, found.damaged_bytes)


def _readings(replies: NDArray[np.void]) -> NDArray[np.void]:
    from tracer_async.capture._records import readings_of

    return readings_of(replies)


def _decode(source: Source, capture_format: CaptureFormat | None, chunk_size: int) -> Iterator[Found]:
    try:
        import numpy as np  # noqa: F401  # only to find out whether it is there
    except ImportError as error:
        raise MissingExtraError("decoding a capture into columns", "bulk") from error
    return proved(_scan(source, capture_format, chunk_size), _is_framed, 4)


def _is_framed(found: Found) -> bool:
    return len(found.frames) > 0 or bool(found.damage["kind"].any())


def _scan(source: Source, capture_format: CaptureFormat | None, chunk_size: int) -> Iterator[Found]:
    if isinstance(source, (str, os.PathLike)):
        with Path(source).open("rb", buffering=0) as file:
            yield from _scan(file, capture_format, chunk_size)
        return
    from tracer_async.capture._scan import Sender

    if isinstance(source, (bytes, bytearray, memoryview)):
        source = io.BytesIO(source)
    senders: dict[str, Sender] = {}
    held = 0
    broken: CaptureError | None = None
    try:
        for name, data in read_bursts(source, capture_format, chunk_size):
            sender = senders.get(name)
            if sender is None:
                sender = senders[name] = Sender(len(senders))
            sender.hold(data)
            held += len(data)
            if held >= chunk_size:
                held = 0
                yield from _scan_each(senders, last=False)
    except CaptureError as error:
        broken = error
    # Also before a line that is wrong, as `read_capture` does.
    yield from _scan_each(senders, last=True)
    if broken is not None:
        raise broken


def _scan_each(senders: dict[str, Sender], *, last: bool) -> Iterator[Found]:
    names = tuple(senders)
    for sender in senders.values():
        found = sender.scan(names, last=last)
        if found is not None:
            yield found


def _joined(parts: Sequence[NDArray[np.void]]) -> NDArray[np.void]:
    import numpy as np

    # As plain bytes: field by field takes eight times as long.
    dtype = parts[0].dtype
    return np.concatenate([part.view(f"V{dtype.itemsize}") for part in parts]).view(dtype)
