"""Captures: the bytes of a sniffed line, in a file or a pipe, decoded as they are read.

Two rules explain it:

1. The events depend on the capture alone, never on how it was cut into chunks; neighbouring noise is one event, up to
   `NOISE_PIECE` bytes.
2. Memory is bounded, whatever the file is; so a file is known to be no capture only once it has been looked through.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from itertools import chain
from typing import BinaryIO, NamedTuple, TypeVar

from tracer_async.errors import CaptureError
from tracer_async.protocol import OVERHEAD, Event, Frame, FrameDecoder, Noise

__all__ = [
    "NOISE_PIECE",
    "CaptureFormat",
    "CapturedEvent",
    "guess_format",
    "proved",
    "read_bursts",
    "read_capture",
]

T = TypeVar("T")

NOISE_PIECE = 4096
"""The most bytes of one noise event; a longer run of noise comes in pieces of this size."""

_CHUNK = 1 << 16
_HEAD = 256
_LONGEST_LINE = 1 << 20
_MOST_SENDERS = 16
_HELD_BACK = 256

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SEPARATORS = [bytes((byte,)) for byte in b" \t\n\r\v\f,:;-"]
_WORD = re.compile(rb"[^\s,:;-]+")
_HEX_WORD = re.compile(rb"(?:0[xX])?([0-9a-fA-F]+)")
_HEX_TEXT = re.compile(rb"[0-9a-fA-FxX\\\s,:;-]*")


class CaptureFormat(StrEnum):
    """How a capture is written down."""

    BINARY = "binary"
    """The bytes themselves, of one direction or of a line that both directions share."""
    HEX = "hex"
    """Hexadecimal text: ``EB90EB90``, ``eb 90``, ``EB:90``, ``0xEB, 0x90``; a lone digit is a byte too, as Arduinos
    print it."""
    JSON_LINES = "jsonl"
    """A JSON object a line, ``{"from": "controller", "hex": "eb90..."}``; every sender has its own decoder."""


class CapturedEvent(NamedTuple):
    """One event of a capture, and where it was."""

    offset: int
    """Where it begins: bytes from the start, counted for each sender on its own."""
    sender: str
    """Who sent it, as the capture says; empty where it does not."""
    event: Event

    @property
    def size(self) -> int:
        """How many bytes it is."""
        event = self.event
        return OVERHEAD + len(event.data) if isinstance(event, Frame) else len(event.raw)


def guess_format(head: bytes) -> CaptureFormat:
    """Say what a capture that begins with *head* is written in. Raises CaptureError for text that is neither."""
    head = head.removeprefix(_BYTE_ORDER_MARK)
    if not head.isascii() or b"\0" in head:
        return CaptureFormat.BINARY
    if head.lstrip().startswith(b"{"):
        return CaptureFormat.JSON_LINES
    if _HEX_TEXT.fullmatch(head):
        return CaptureFormat.HEX
    raise CaptureError("no capture: it is text, and neither hexadecimal nor JSON lines")


def read_capture(source: BinaryIO, capture_format: CaptureFormat | None = None) -> Iterator[CapturedEvent]:
    """Decode a capture as it is read from *source*, open in binary mode; a pipe will do.

    Damaged frames and noise are events like the good frames. The format is found out unless it is given. Raises
    CaptureError, before it yields anything, for a file that is empty, or (noise in the megabytes aside) one without
    any frame; and where a line of text is not what the format says, after it has yielded what stands before.
    """
    return proved(_decode(read_bursts(source, capture_format)), _is_framed, _HELD_BACK)


def read_bursts(
    source: BinaryIO, capture_format: CaptureFormat | None = None, size: int = _CHUNK
) -> Iterator[tuple[str, bytes]]:
    """Return the bytes of a capture, each piece with its sender, read *size* bytes at a time.

    Raises CaptureError at once for a file that is empty, or text of neither format.
    """
    # A pipe's bytes are taken as they come, so that a running sniff can be watched.
    read: Callable[[int], bytes] = getattr(source, "read1", source.read)
    head = b""
    while len(head) < _HEAD and (more := read(size)):
        head += more
    if not head.strip():
        raise CaptureError("no capture: it is empty")
    if capture_format is None:
        capture_format = guess_format(head)
    if capture_format is not CaptureFormat.BINARY:
        head = head.removeprefix(_BYTE_ORDER_MARK)
    chunks = chain([head], iter(lambda: read(size), b""))
    if capture_format is CaptureFormat.JSON_LINES:
        return _from_json(_lines(chunks))
    return (("", data) for data in (_from_hex(chunks) if capture_format is CaptureFormat.HEX else chunks))


class _Sender:
    """The decoder of one direction, and where it stands."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._decoder = FrameDecoder()
        self._offset = 0
        self._noise = b""

    def feed(self, data: bytes) -> Iterator[CapturedEvent]:
        """Yield the events that *data* completes, except noise that may go on."""
        return self._joined(self._decoder.feed(data))

    def settle(self) -> Iterator[CapturedEvent]:
        """Yield the noise so far, because something else follows it."""
        if self._noise:
            yield self._placed(Noise(self._noise))
            self._noise = b""

    def finish(self) -> Iterator[CapturedEvent]:
        """Yield all that is left."""
        yield from self._joined(self._decoder.flush())
        yield from self.settle()

    def _joined(self, events: Iterable[Event]) -> Iterator[CapturedEvent]:
        for event in events:
            if isinstance(event, Noise):
                self._noise += event.raw
                while len(self._noise) > NOISE_PIECE:
                    yield self._placed(Noise(self._noise[:NOISE_PIECE]))
                    self._noise = self._noise[NOISE_PIECE:]
            else:
                yield from self.settle()
                yield self._placed(event)

    def _placed(self, event: Event) -> CapturedEvent:
        captured = CapturedEvent(self._offset, self._name, event)
        self._offset += captured.size
        return captured


def _decode(bursts: Iterable[tuple[str, bytes]]) -> Iterator[CapturedEvent]:
    senders: dict[str, _Sender] = {}
    last: _Sender | None = None
    broken: CaptureError | None = None
    try:
        for name, data in bursts:
            sender = senders.get(name)
            if sender is None:
                sender = senders[name] = _Sender(name)
            if last is not None and last is not sender:
                yield from last.settle()
            last = sender
            yield from sender.feed(data)
    except CaptureError as error:
        broken = error
    # Also before a line that is wrong: whoever recorded it may have been stopped in the middle of that line.
    for sender in senders.values():
        yield from sender.finish()
    if broken is not None:
        raise broken


def _is_framed(captured: CapturedEvent) -> bool:
    return not isinstance(captured.event, Noise)


def proved(parts: Iterator[T], is_framed: Callable[[T], bool], most: int) -> Iterator[T]:
    """Hold back noise at the start, *most* parts of it, until a frame has shown that this is a capture.

    Raises CaptureError at the end if none has.
    """
    held: list[T] = []
    for part in parts:
        held.append(part)
        framed = is_framed(part)
        if framed or len(held) > most:
            yield from held
            held.clear()
        if framed:
            yield from parts
            return
    raise CaptureError("no capture of an MT-5 line: there is no frame in it")


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > _LONGEST_LINE:
            raise CaptureError(f"it has a line of more than {_LONGEST_LINE} bytes")
    if rest:
        yield rest


def _from_json(lines: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    senders: set[str] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            burst = json.loads(line)
            sender, data = burst.get("from", ""), bytes.fromhex(burst["hex"])
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            sender = None
        if not isinstance(sender, str):
            raise CaptureError(f'line {number} is not of the form {{"from": "controller", "hex": "eb90..."}}')
        senders.add(sender)
        if len(senders) > _MOST_SENDERS:
            raise CaptureError(f"it has more than {_MOST_SENDERS} senders")
        yield sender, data


def _from_hex(chunks: Iterable[bytes]) -> Iterator[bytes]:
    line = 1
    rest = b""
    for chunk in chain(chunks, [b" "]):
        text = rest + chunk
        # The last word may go on in the next chunk. One that is longer than a chunk has no prefix within it.
        cut = 1 + max(map(text.rfind, _SEPARATORS))
        size = len(text) - cut
        if size >= _CHUNK:
            cut += size // 4 * 4
        text, rest = text[:cut], text[cut:]
        try:
            yield bytes.fromhex(text.decode("ascii"))  # it passes over white space
        except ValueError:
            yield from _from_words(text, line)
        line += text.count(b"\n")


def _from_words(text: bytes, line: int) -> Iterator[bytes]:
    data = bytearray()
    for word in _WORD.finditer(text):
        match = _HEX_WORD.fullmatch(word[0].replace(b"\\x", b""))
        digits = match[1] if match else b""
        if not digits or (len(digits) > 1 and len(digits) % 2):
            yield bytes(data)
            line += text.count(b"\n", 0, word.start())
            what = word[0][:20].decode("ascii", "backslashreplace")
            raise CaptureError(f"line {line}: {what!r} is no bytes in hexadecimal")
        data += bytes.fromhex(digits.decode("ascii").zfill(2))
    yield bytes(data)
