"""The decoder, fed any bytes, cut and flushed anywhere.

Invariant: for every stream and every way to cut it

* nothing raises;
* each byte ends in exactly one event, in order, or is pending, and less than one frame's bytes are pending;
* the good frames are those that a naive search finds: at each place in turn, is this a whole good frame?
* the events are those of the same bytes in one piece, neighbouring noise merged; no byte is pending after a flush;
* a good frame behind the stream is found, unless a good frame that began within the stream runs into it;
* the counters say what the events say.
"""

from __future__ import annotations

from itertools import cycle

from tests.protocol.events import merged, raw
from tracer_async.protocol import (
    END,
    MAX_DATA,
    OVERHEAD,
    SYNC,
    CorruptFrame,
    DecoderStats,
    Event,
    Frame,
    FrameDecoder,
    Noise,
    crc16,
)

__all__ = ["FLUSH", "REPAIR", "check"]

REPAIR = 0x80
"""Option in the first byte: correct the CRC and end byte of each frame, because a fuzzer cannot compute a CRC."""

FLUSH = 0xF0
"""From here on, a cut is no size of a chunk, but a flush."""


def check(data: bytes) -> None:
    """Raise AssertionError if *data*, options and cuts and then a stream, breaks the invariant of this module."""
    options, data = data[:1] or b"\x00", data[1:]
    number = options[0] & 0x0F
    cuts, stream = data[:number], data[number:]
    if options[0] & REPAIR:
        stream = repaired(stream)

    decoder = FrameDecoder()
    events: list[Event] = []
    expected: list[Event] = []
    for segment in segments(stream, cuts):
        reported = fed = 0
        for chunk in segment:
            fed += len(chunk)
            found = decoder.feed(memoryview(chunk))
            reported += sum(len(raw(event)) for event in found)
            events += found
            assert decoder.pending == fed - reported, "a byte is in no event, or in two"
            assert decoder.pending < OVERHEAD + MAX_DATA, "more than one frame is held"
        events += decoder.flush()
        assert decoder.pending == 0, "a flush leaves bytes pending"
        whole = b"".join(segment)
        once = decode(whole)
        assert frames(once) == naive_frames(whole), "other good frames than there are"
        expected += once
    assert b"".join(map(raw, events)) == stream, "other bytes came out than went in"
    assert merged(events) == merged(expected), "the events depend on how the stream was cut"
    assert decoder.stats == counted(events), "the counters say something else than the events"
    assert all(event.raw.startswith(SYNC) for event in events if isinstance(event, CorruptFrame))

    good = Frame(0x00, 0xA0, stream[-24:].ljust(24, b"\x00"))
    assert is_found_behind(good, stream), f"{good} is lost"


def segments(stream: bytes, cuts: bytes) -> list[list[bytes]]:
    """*stream* in chunks, the sizes taken cyclically from *cuts*; a flush begins a new segment."""
    if not any(0 < cut < FLUSH for cut in cuts):
        return [[stream]]
    result: list[list[bytes]] = [[]]
    at = 0
    for cut in cycle(cuts):
        if at >= len(stream):
            break
        if cut >= FLUSH:
            result.append([])
        else:
            result[-1].append(stream[at : at + cut])
            at += cut
    return result


def decode(stream: bytes) -> list[Event]:
    """The events of *stream* in one piece."""
    decoder = FrameDecoder()
    return decoder.feed(stream) + decoder.flush()


def frames(events: list[Event]) -> list[Frame]:
    """The good frames among *events*."""
    return [event for event in events if isinstance(event, Frame)]


def naive_frames(stream: bytes) -> list[Frame]:
    """The good frames of *stream*, by a test at each offset. The decoder finds them in one pass without going back."""
    found = []
    at = 0
    while (at := stream.find(SYNC, at)) >= 0:
        head, length = stream[at + 6 : at + 8], stream[at + 8 : at + 9]
        if length and length[0] <= MAX_DATA:
            frame = Frame(head[0], head[1], stream[at + 9 : at + 9 + length[0]])
            if stream.startswith(frame.encode(start_up=False), at) and len(frame.data) == length[0]:
                found.append(frame)
                at += OVERHEAD + length[0]
                continue
        at += 1
    return found


def counted(events: list[Event]) -> DecoderStats:
    """What the decoder's counters should say."""
    corrupt = [event.raw for event in events if isinstance(event, CorruptFrame)]
    return DecoderStats(
        frames=len(frames(events)),
        corrupt_frames=len(corrupt),
        corrupt_bytes=sum(map(len, corrupt)),
        noise_bytes=sum(len(event.raw) for event in events if isinstance(event, Noise)),
    )


def is_found_behind(good: Frame, stream: bytes) -> bool:
    """Whether *good* is decoded right behind *stream*, or swallowed by a good frame from within it."""
    at = 0
    for event in decode(stream + raw(good)):
        start, at = at, at + len(raw(event))
        if at > len(stream) and isinstance(event, Frame):
            return start < len(stream) or event == good
    return False


def repaired(stream: bytes) -> bytes:
    """*stream* with CRC and end byte put right wherever it holds a header and has room for its frame."""
    result = bytearray(stream)
    at = 0
    while (at := result.find(SYNC, at)) >= 0:
        length = result[at + 8] if at + 8 < len(result) else MAX_DATA + 1
        stop = at + OVERHEAD + length
        if length <= MAX_DATA and stop <= len(result):
            result[stop - 3 : stop] = crc16(bytes(result[at + 6 : stop - 3])).to_bytes(2, "big") + bytes((END,))
        at += 1
    return bytes(result)
