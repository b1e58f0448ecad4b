"""Captures: the bytes of a sniffed serial line, in a file or a pipe, decoded while they are read.

Two rules:

1. The events depend only on the capture, not on the chunks in which it is read. Consecutive noise is one event of up to
   `NOISE_PIECE` bytes.
2. Memory is bounded for any file. So a file without frames is recognized only at its end.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from itertools import chain
from typing import BinaryIO, NamedTuple, TypeVar

from tracer_async.capture._json_lines import Burst, DamagedLine, MissingRecords, read_records, split_lines
from tracer_async.errors import CaptureError
from tracer_async.protocol import OVERHEAD, Event, Frame, FrameDecoder, Noise

__all__ = [
    "NOISE_PIECE",
    "CaptureFormat",
    "CapturedEvent",
    "guess_format",
    "read_bursts",
    "read_capture",
    "require_frame",
]

T = TypeVar("T")

_log = logging.getLogger("tracer_async.capture")

NOISE_PIECE = 4096
"""Maximum bytes of one noise event. Longer noise is split into events of this size."""

# Bytes per read, and bytes at the start of a file from which the format is detected.
_CHUNK = 1 << 16
_HEAD = 256
# Limits that bound the memory: a file that exceeds them is not a capture of a serial line with two or three senders.
_MAX_SENDERS = 16
# Damaged lines of a recording that are logged one by one.
_MAX_LOGGED = 20
# Noise events, of up to 4 KiB each, that are kept before the first frame.
_MAX_HELD_EVENTS = 256

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SEPARATORS = [bytes((byte,)) for byte in b" \t\n\r\v\f,:;-"]
_WORD = re.compile(rb"[^\s,:;-]+")
_HEX_WORD = re.compile(rb"(?:0[xX])?([0-9a-fA-F]+)")
_HEX_TEXT = re.compile(rb"[0-9a-fA-FxX\\\s,:;-]*")


class CaptureFormat(StrEnum):
    """The file format of a capture."""

    BINARY = "binary"
    """The bytes themselves, of one direction or of both directions mixed."""
    HEX = "hex"
    """Hexadecimal text: ``EB90EB90``, ``eb 90``, ``EB:90``, ``0xEB, 0x90``. A single digit is a byte too, because
    Arduino programs print it without the leading 0."""
    JSON_LINES = "jsonl"
    """One JSON object per line, ``{"from": "controller", "hex": "eb90..."}``. Recordings are of this format too. Every
    sender has its own decoder."""


class CapturedEvent(NamedTuple):
    """One event of a capture, with its position and sender."""

    offset: int
    """Position of its first byte, counted separately for each sender."""
    sender: str
    """The sender in the capture. Empty if the capture has none."""
    event: Event

    @property
    def size(self) -> int:
        """Size in bytes."""
        event = self.event
        return OVERHEAD + len(event.data) if isinstance(event, Frame) else len(event.raw)


def guess_format(head: bytes) -> CaptureFormat:
    """Return the format of a capture that begins with *head*. Raises CaptureError for any other text."""
    head = head.removeprefix(_BYTE_ORDER_MARK)
    # A recording may have damaged lines with any bytes.
    if head.startswith(b'{"'):
        return CaptureFormat.JSON_LINES
    # Sync bytes are not ASCII, so any binary capture with a frame or a byte above 7F near its start is recognized.
    if not head.isascii() or b"\0" in head:
        return CaptureFormat.BINARY
    if head.lstrip().startswith(b"{"):
        return CaptureFormat.JSON_LINES
    if _HEX_TEXT.fullmatch(head):
        return CaptureFormat.HEX
    raise CaptureError("not a capture: it is text, but neither hexadecimal nor JSON lines")


def read_capture(source: BinaryIO, capture_format: CaptureFormat | None = None) -> Iterator[CapturedEvent]:
    """Decode a capture while it is read from *source*, a file or a pipe open in binary mode.

    Damaged frames and noise are events too. Without *capture_format* the format is detected.

    Raises CaptureError before the first event if the file is empty or has no frame (a file that starts with more than
    1 MiB of noise raises it at the end). For an invalid line of text, raises it after all events before this line.
    Damaged lines of a recording are skipped, with a warning in the log ``tracer_async.capture``.
    """
    return require_frame(_decode(read_bursts(source, capture_format)), _has_frame, _MAX_HELD_EVENTS)


def read_bursts(
    source: BinaryIO, capture_format: CaptureFormat | None = None, size: int = _CHUNK
) -> Iterator[tuple[str, bytes]]:
    """Return the bytes of a capture in pieces, each with its sender. Read *size* bytes at a time.

    Raises CaptureError at once for an empty file, or for text in neither of the two text formats.
    """
    # read1 returns the bytes that a pipe has now, so that a running sniff can be displayed. read would wait for *size*.
    read: Callable[[int], bytes] = getattr(source, "read1", source.read)
    head = b""
    while len(head) < _HEAD and (more := read(size)):
        head += more
    if not head.strip():
        raise CaptureError("not a capture: it is empty")
    if capture_format is None:
        capture_format = guess_format(head)
    # In a binary capture these three bytes are noise and must be reported, in a text they are not part of the text.
    if capture_format is not CaptureFormat.BINARY:
        head = head.removeprefix(_BYTE_ORDER_MARK)
    chunks = chain([head], iter(lambda: read(size), b""))
    if capture_format is CaptureFormat.JSON_LINES:
        return _from_json(split_lines(chunks))
    return (("", data) for data in (_from_hex(chunks) if capture_format is CaptureFormat.HEX else chunks))


class _Sender:
    """The decoder of one sender, and the position of its next event."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._decoder = FrameDecoder()
        self._offset = 0
        self._noise = b""

    def feed(self, data: bytes) -> Iterator[CapturedEvent]:
        """Yield the events that *data* completes, except noise at the end: more noise may follow."""
        return self._merge_noise(self._decoder.feed(data))

    def flush_noise(self) -> Iterator[CapturedEvent]:
        """Yield the noise so far, because other bytes follow."""
        if self._noise:
            yield self._with_offset(Noise(self._noise))
            self._noise = b""

    def flush(self) -> Iterator[CapturedEvent]:
        """Yield all remaining events."""
        yield from self._merge_noise(self._decoder.flush())
        yield from self.flush_noise()

    def _merge_noise(self, events: Iterable[Event]) -> Iterator[CapturedEvent]:
        for event in events:
            if isinstance(event, Noise):
                self._noise += event.raw
                while len(self._noise) > NOISE_PIECE:
                    yield self._with_offset(Noise(self._noise[:NOISE_PIECE]))
                    self._noise = self._noise[NOISE_PIECE:]
            else:
                yield from self.flush_noise()
                yield self._with_offset(event)

    def _with_offset(self, event: Event) -> CapturedEvent:
        captured = CapturedEvent(self._offset, self._name, event)
        self._offset += captured.size
        return captured


def _decode(bursts: Iterable[tuple[str, bytes]]) -> Iterator[CapturedEvent]:
    senders: dict[str, _Sender] = {}
    last: _Sender | None = None
    format_error: CaptureError | None = None
    try:
        for name, data in bursts:
            sender = senders.get(name)
            if sender is None:
                sender = senders[name] = _Sender(name)
            # Noise ends where another sender begins. Otherwise a display would show it after the bytes that followed.
            if last is not None and last is not sender:
                yield from last.flush_noise()
            last = sender
            yield from sender.feed(data)
    except CaptureError as error:
        format_error = error
    # Yield the events before an invalid line too: a recording that was interrupted ends in the middle of a line.
    for sender in senders.values():
        yield from sender.flush()
    if format_error is not None:
        raise format_error


def _has_frame(captured: CapturedEvent) -> bool:
    return not isinstance(captured.event, Noise)


def require_frame(parts: Iterator[T], has_frame: Callable[[T], bool], maximum: int) -> Iterator[T]:
    """Hold back up to *maximum* parts of noise at the start, until the first frame shows that this is a capture.

    Raises CaptureError at the end if there is no frame.
    """
    held: list[T] = []
    for part in parts:
        held.append(part)
        found = has_frame(part)
        # Good and damaged frames count: a damaged capture is a capture. Without the limit, a large file of noise would
        # be held in memory.
        if found or len(held) > maximum:
            yield from held
            held.clear()
        if found:
            yield from parts
            return
    raise CaptureError("not a capture of an MT-5 line: there is no frame in it")


def _from_json(lines: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    senders: set[str] = set()
    damaged = 0
    for record in read_records(lines):
        if isinstance(record, Burst):
            senders.add(record.sender)
            if len(senders) > _MAX_SENDERS:
                raise CaptureError(f"not a capture: it has more than {_MAX_SENDERS} senders")
            yield record.sender, record.data
        elif isinstance(record, DamagedLine):
            damaged += 1
            if damaged <= _MAX_LOGGED:
                _log.warning("line %d was skipped: %s", record.number, record.reason)
        elif isinstance(record, MissingRecords):
            _log.warning("%d records are missing: the recorder could not write them", record.number)
    if damaged > _MAX_LOGGED:
        _log.warning("%d damaged lines were skipped in all", damaged)


def _from_hex(chunks: Iterable[bytes]) -> Iterator[bytes]:
    line = 1
    rest = b""
    for chunk in chain(chunks, [b" "]):
        text = rest + chunk
        # The last word may continue in the next chunk, so keep it. A word longer than a chunk is hexadecimal without
        # separators: pass on a multiple of 4 digits, because bytes.fromhex needs whole bytes.
        cut = 1 + max(map(text.rfind, _SEPARATORS))
        size = len(text) - cut
        if size >= _CHUNK:
            cut += size // 4 * 4
        text, rest = text[:cut], text[cut:]
        try:
            yield bytes.fromhex(text.decode("ascii"))  # fast path: it skips white space, but no other separators
        except ValueError:
            yield from _from_words(text, line)
        line += text.count(b"\n")


def _from_words(text: bytes, line: int) -> Iterator[bytes]:
    data = bytearray()
    for word in _WORD.finditer(text):
        match = _HEX_WORD.fullmatch(word[0].replace(b"\\x", b""))
        digits = match[1] if match else b""
        # A single digit is one byte (Arduino). In a longer word, an odd number means that a digit is missing.
        if not digits or (len(digits) > 1 and len(digits) % 2):
            # First the bytes before the wrong word, so that their frames are reported.
            yield bytes(data)
            line += text.count(b"\n", 0, word.start())
            what = word[0][:20].decode("ascii", "backslashreplace")
            raise CaptureError(f"line {line}: {what!r} is not hexadecimal bytes")
        data += bytes.fromhex(digits.decode("ascii").zfill(2))
    yield bytes(data)
