"""Bulk decoding of captures into NumPy arrays, many frames at a time instead of one event at a time.

The result is the same as that of `read_capture`, to the byte. With several senders there are two differences: the
events of one sender are together, and noise does not end where the bytes of another sender come. NumPy (extra ``bulk``)
is imported only when it is used.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from tracer_async.capture._events import CapturedEvent, CaptureFormat, read_bursts, require_frame
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
"""A path, the bytes of a capture, or a file open in binary mode. The file can be a pipe."""

# 256 KiB and all arrays computed from them fit into the cache of a processor.
_CHUNK = 1 << 18


@dataclass(frozen=True, eq=False, slots=True)
class Capture:
    """A capture, or the next chunk of one, as arrays of records. The fields of the records are the columns.

    Every byte of the capture is in exactly one record of ``frames`` or ``damage``. The field ``offset`` is the position
    of the first byte, counted from the start of the capture separately for each sender. The field ``sender`` is an
    index into `senders`.
    """

    senders: tuple[str, ...]
    """Names of the senders in the capture. One empty name if the capture has none."""
    readings: NDArray[np.void]
    """The replies to A0: ``offset``, ``sender`` and the fields of `RealtimeData` in the same units: float64 volts and
    amperes, bool flags, int16 degrees Celsius, four uint8 reserved bytes."""
    frames: NDArray[np.void]
    """All good frames, including replies to A0: ``offset``, ``sender``, ``controller_id``, ``command``, and the
    ``length`` of the data."""
    damage: NDArray[np.void]
    """Damaged frames and noise: ``offset``, ``sender``, ``kind`` (an index into `KINDS`), and ``size`` in bytes."""
    damaged_bytes: bytes
    """The bytes of all damage records, in the same order."""

    @property
    def stats(self) -> DecoderStats:
        """The counters that `FrameDecoder` has after these bytes."""
        size, corrupt = self.damage["size"], self.damage["kind"] > 0
        corrupt_bytes = int(size.sum(where=corrupt))
        return DecoderStats(
            len(self.frames), int(corrupt.sum()), corrupt_bytes, int(size.sum(dtype="int64")) - corrupt_bytes
        )

    def events(self) -> Iterator[CapturedEvent]:
        """Yield damaged frames and noise. Good frames are not yielded.

        They are those of `read_capture`. With several senders, the events of one sender are together, and noise does
        not end where the bytes of another sender come.
        """
        at = 0
        for offset, sender, kind, size in self.damage.tolist():
            raw = self.damaged_bytes[at : at + size]
            at += size
            event = CorruptFrame(raw, Reason(KINDS[kind])) if kind else Noise(raw)
            yield CapturedEvent(offset, self.senders[sender], event)


def decode_capture(source: Source, capture_format: CaptureFormat | None = None) -> Capture:
    """Decode a capture that fits into memory. Without *capture_format* the format is detected.

    Raises CaptureError for a file that is not a capture, as `read_capture` does, and MissingExtraError without NumPy.
    """
    senders, replies, frames, damage, damaged_bytes = zip(*_decode(source, capture_format, _CHUNK), strict=True)
    # Join the replies before decoding them: the wide records of the readings (72 bytes) are then created only once.
    return Capture(senders[-1], _readings(_joined(replies)), _joined(frames), _joined(damage), b"".join(damaged_bytes))


def decode_chunks(
    source: Source, capture_format: CaptureFormat | None = None, *, chunk_size: int = _CHUNK
) -> Iterator[Capture]:
    """Decode a capture of any size in bounded memory. Yield the records of each *chunk_size* bytes, sender by sender.

    Raises the same errors as `decode_capture`. For an invalid line of text, CaptureError is raised after everything
    before this line was yielded.
    """
    return map(_capture, _decode(source, capture_format, check_whole("chunk_size", chunk_size)))


def _capture(found: Found) -> Capture:
    return Capture(found.senders, _readings(found.replies), found.frames, found.damage, found.damaged_bytes)


def _readings(replies: NDArray[np.void]) -> NDArray[np.void]:
    from tracer_async.capture._records import readings_of

    return readings_of(replies)


def _decode(source: Source, capture_format: CaptureFormat | None, chunk_size: int) -> Iterator[Found]:
    try:
        import numpy as np  # noqa: F401  # fail now rather than at the first chunk
    except ImportError as error:
        raise MissingExtraError("decoding a capture into columns", "bulk") from error
    # Few parts, because each has up to *chunk_size* bytes.
    return require_frame(_scan(source, capture_format, chunk_size), _has_frame, 4)


def _has_frame(found: Found) -> bool:
    return len(found.frames) > 0 or bool(found.damage["kind"].any())


def _scan(source: Source, capture_format: CaptureFormat | None, chunk_size: int) -> Iterator[Found]:
    if isinstance(source, (str, os.PathLike)):
        # Unbuffered: the reads are larger than the buffer that Python would use.
        with Path(source).open("rb", buffering=0) as file:
            yield from _scan(file, capture_format, chunk_size)
        return
    from tracer_async.capture._scan import Sender

    if isinstance(source, (bytes, bytearray, memoryview)):
        source = io.BytesIO(source)
    senders: dict[str, Sender] = {}
    pending = 0
    format_error: CaptureError | None = None
    try:
        for name, data in read_bursts(source, capture_format, chunk_size):
            sender = senders.get(name)
            if sender is None:
                sender = senders[name] = Sender(len(senders))
            sender.feed(data)
            # Scan when all senders together have a chunk: the memory is then bounded for any number of senders.
            pending += len(data)
            if pending >= chunk_size:
                pending = 0
                yield from _scan_each(senders, last=False)
    except CaptureError as error:
        format_error = error
    # Yield the frames before an invalid line too, as `read_capture` does.
    yield from _scan_each(senders, last=True)
    if format_error is not None:
        raise format_error


def _scan_each(senders: dict[str, Sender], *, last: bool) -> Iterator[Found]:
    names = tuple(senders)
    for sender in senders.values():
        found = sender.scan(names, last=last)
        if found is not None:
            yield found


def _joined(parts: Sequence[NDArray[np.void]]) -> NDArray[np.void]:
    import numpy as np

    # Concatenate as plain bytes: NumPy copies structured records field by field, which takes eight times as long.
    dtype = parts[0].dtype
    return np.concatenate([part.view(f"V{dtype.itemsize}") for part in parts]).view(dtype)
