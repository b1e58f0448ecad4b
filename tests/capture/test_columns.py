"""Bulk decoding gives the same result as the streaming decoder, to the byte, for any chunks."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.capture.samples import NOT_CAPTURES
from tests.protocol.strategies import damaged, pieces, streams, whole
from tracer_async import CaptureError, CorruptFrame, Frame, FrameDecoder, Noise, RealtimeData
from tracer_async.capture import (
    NOISE_PIECE,
    Capture,
    CapturedEvent,
    CaptureFormat,
    decode_capture,
    decode_chunks,
    read_capture,
)
from tracer_async.capture._columns import Source
from tracer_async.protocol import OVERHEAD, SYNC

CAPTURES = Path(__file__).parents[3] / "shared" / "captures"
TORN = bytes.fromhex("eb90eb90eb9000a018d204d30400000e005304a5050100001f00000000330a0000995b7f")
REPLY = bytes.fromhex("eb90eb90eb9000a018dc04500d000000005904980500000029000000013a760100d9697f")

# A frame whose data contain complete, damaged and partial frames; and repeated sync bytes.
nested = st.builds(
    lambda inner: Frame(0, 0xA0, b"".join(inner)[:200]).encode(start_up=False),
    st.lists(pieces | damaged() | whole, min_size=1, max_size=4),
)
repeated = st.builds(lambda count, rest: SYNC * count + rest, st.integers(1, 6), st.binary(max_size=4))
# A header whose length is larger than its data, so that the frame includes the bytes that follow.
swallowing = st.builds(lambda length, data: SYNC + bytes((0, 0xA0, length)) + data, st.integers(0, 255), st.binary())
replies = st.builds(
    lambda head, flags, tail: Frame(0, 0xA0, head + bytes(flags) + tail).encode(start_up=False),
    st.binary(min_size=12, max_size=12),
    st.lists(st.integers(0, 1) | st.integers(0, 255), min_size=8, max_size=8),
    st.binary(min_size=4, max_size=4),
)
# Most captures are uniform: frames of one size without gaps.
uniform = st.builds(lambda frame, count: frame * count, replies | whole, st.integers(1, 8))
hostile = st.lists(
    uniform | nested | repeated | swallowing | replies | damaged() | pieces | whole,
    max_size=8,
).map(b"".join)


def streamed(data: bytes) -> list[CapturedEvent]:
    """The events of the streaming decoder for *data*. Noise is merged, and split as in captures."""
    decoder = FrameDecoder()
    events: list[CapturedEvent] = []
    at = 0
    noise = b""
    for event in [*decoder.feed(data), *decoder.flush(), Noise(b"")]:
        if isinstance(event, Noise) and event.raw:
            noise += event.raw
            continue
        while noise:
            events.append(CapturedEvent(at, "", Noise(noise[:NOISE_PIECE])))
            at += len(noise[:NOISE_PIECE])
            noise = noise[NOISE_PIECE:]
        if not isinstance(event, Noise):
            events.append(CapturedEvent(at, "", event))
            at += events[-1].size
    assert at == len(data)
    return events


def check(capture: Capture, events: list[CapturedEvent]) -> None:
    """Compare all fields of *capture*, which has one sender, with *events*."""
    frames = [(offset, event) for offset, _, event in events if isinstance(event, Frame)]
    assert capture.frames[["offset", "controller_id", "command", "length"]].tolist() == [
        (offset, frame.controller_id, frame.command, len(frame.data)) for offset, frame in frames
    ]
    assert list(capture.events()) == [captured for captured in events if not isinstance(captured.event, Frame)]
    check_readings(capture, frames)
    assert capture.stats == (
        len(frames),
        sum(isinstance(event, CorruptFrame) for _, _, event in events),
        sum(captured.size for captured in events if isinstance(captured.event, CorruptFrame)),
        sum(captured.size for captured in events if isinstance(captured.event, Noise)),
    )


def check_readings(capture: Capture, frames: list[tuple[int, Frame]]) -> None:
    expected = []
    for offset, frame in frames:
        try:
            data = RealtimeData.from_bytes(frame.data)
        except ValueError:
            continue
        if frame.command == 0xA0:
            expected.append((offset, data))
    assert capture.readings["offset"].tolist() == [offset for offset, _ in expected]
    for name in RealtimeData._fields[:-1]:
        assert capture.readings[name].tolist() == [getattr(data, name) for _, data in expected]
    assert capture.readings["reserved"].tobytes() == b"".join(data.reserved for _, data in expected)


def joined(chunks: Iterator[Capture]) -> Capture:
    parts = list(chunks)
    return Capture(
        parts[-1].senders,
        np.concatenate([part.readings for part in parts]),
        np.concatenate([part.frames for part in parts]),
        np.concatenate([part.damage for part in parts]),
        b"".join(part.damaged_bytes for part in parts),
    )


@given(streams | hostile, streams | hostile)
def test_bulk_decoding_gives_the_events_of_the_streaming_decoder(before: bytes, after: bytes) -> None:
    data = before + REPLY + after + REPLY + before[:50]
    check(decode_capture(data, CaptureFormat.BINARY), streamed(data))


@given(whole | replies, st.integers(1, 150), st.integers(0, 10**9), st.integers(0, 255), st.integers(0, 40))
def test_one_damaged_byte_in_a_uniform_capture_is_found(
    frame: bytes, count: int, place: int, change: int, cut: int
) -> None:
    data = bytearray(frame * count)
    data[place % len(data)] ^= change
    data = data[: len(data) - cut] or data
    check(joined(decode_chunks(REPLY + data, CaptureFormat.BINARY, chunk_size=3000)), streamed(REPLY + bytes(data)))
    if len(frame) == len(REPLY):
        check(decode_capture(data + REPLY, CaptureFormat.BINARY), streamed(bytes(data) + REPLY))


@given(streams | hostile, st.integers(1, 300))
def test_the_result_does_not_depend_on_the_chunk_size(stream: bytes, size: int) -> None:
    data = REPLY + stream
    check(joined(decode_chunks(data, CaptureFormat.BINARY, chunk_size=size)), streamed(data))


@given(st.lists(st.sampled_from(b"\xeb\x90\x00\xa0\x7f"), max_size=80).map(bytes), st.integers(1, 40))
def test_the_result_is_right_for_bytes_that_are_mostly_sync(stream: bytes, size: int) -> None:
    data = REPLY + stream
    check(decode_capture(data, CaptureFormat.BINARY), streamed(data))
    check(joined(decode_chunks(data, CaptureFormat.BINARY, chunk_size=size)), streamed(data))


def test_a_frame_inside_the_data_of_another_frame_is_data() -> None:
    outer = Frame(0, 0xA0, REPLY + REPLY[:3]).encode(start_up=False)
    capture = decode_capture(outer + REPLY)
    assert capture.frames["offset"].tolist() == [0, len(outer)]
    # If the outer frame is damaged, the inner one is found.
    capture = decode_capture(outer[:-1] + b"\0" + REPLY)
    assert capture.frames["offset"].tolist() == [9, len(outer)]


def test_an_overlapping_frame_is_dropped_and_does_not_hide_a_third_frame() -> None:
    first = Frame(0, 0xA0, b"12345" + SYNC + b"\0\xa0\x10").encode(start_up=False)
    third = Frame(0, 0xB0, b"").encode(start_up=False)
    # The second frame starts 14 bytes into the first. Its data are the rest of the first frame, and the third frame.
    second = Frame(0, 0xA0, first[-3:] + third + b"x").encode(start_up=False)
    data = first[:14] + second + REPLY
    assert data.startswith(first)
    capture = decode_capture(data)
    assert capture.frames["offset"].tolist() == [0, len(first), 14 + len(second)]
    check(capture, streamed(data))


def big_stream(size: int) -> bytes:
    """Replies, 10 % of them damaged, mixed with noise and frames of other lengths."""
    generator = random.Random(1)
    stream = bytearray()
    while len(stream) < size:
        raw = bytearray(REPLY if generator.random() < 0.9 else Frame(1, 0xB0, bytes(generator.randrange(201))).encode())
        if generator.random() < 0.1:
            raw[generator.randrange(len(raw))] ^= 1 << generator.randrange(8)
        stream += raw
        if generator.random() < 0.02:
            stream += generator.randbytes(generator.choice((1, 7, 300, 9000)))
    return bytes(stream)


def test_a_capture_of_many_chunks_is_decoded() -> None:
    data = big_stream(2_000_000)
    events = streamed(data)
    check(decode_capture(data), events)
    check(joined(decode_chunks(io.BytesIO(data), chunk_size=65_537)), events)


class Repeated(io.RawIOBase):
    """A long stream that repeats one block, so that it is never completely in memory."""

    def __init__(self, block: bytes, size: int) -> None:
        self._block = block
        self._left = size // len(block) * len(block)
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        into = memoryview(buffer)
        data = self._block[self._at : self._at + min(len(into), self._left)]
        into[: len(data)] = data
        self._at = (self._at + len(data)) % len(self._block)
        self._left -= len(data)
        return len(data)


@pytest.mark.parametrize(
    ("block", "size"),
    [(REPLY * 9 + TORN, 64 << 20), (SYNC, 8 << 20), (bytes(1 << 16), 64 << 20)],
    ids=["replies", "sync bytes", "zeros"],
)
def test_memory_is_bounded(block: bytes, size: int) -> None:
    source = io.BufferedReader(Repeated(REPLY + block * (200_000 // len(block)), size))
    total = 0
    tracemalloc.start()
    try:
        for chunk in decode_chunks(source, CaptureFormat.BINARY):
            total += int(chunk.damage["size"].sum()) + int(chunk.frames["length"].sum()) + OVERHEAD * len(chunk.frames)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size - 300_000 < total <= size
    assert peak < 24 << 20


def test_a_source_is_a_path_bytes_a_file_or_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    path.write_bytes(REPLY + TORN)
    data = path.read_bytes()
    sources: list[Source] = [path, str(path), data, bytearray(data), memoryview(data)]
    for source in sources:
        check(decode_capture(source), streamed(REPLY + TORN))
    with path.open("rb") as file:
        check(decode_capture(file), streamed(REPLY + TORN))
        assert not file.closed


def test_the_format_is_detected() -> None:
    check(decode_capture((b"\xff" + REPLY + TORN).hex(" ").encode()), streamed(b"\xff" + REPLY + TORN))


def test_each_sender_has_its_own_offsets() -> None:
    bursts = [("display", b"\1\2"), ("controller", REPLY[:9]), ("display", REPLY), ("controller", REPLY[9:] + TORN)]
    text = "\n".join(json.dumps({"from": sender, "hex": data.hex()}) for sender, data in bursts).encode()
    capture = decode_capture(text)
    assert capture.senders == ("display", "controller")
    assert capture.readings[["offset", "sender"]].tolist() == [(2, 0), (0, 1)]
    assert capture.frames["sender"].tolist() == [0, 1]
    events = sorted(captured for captured in read_capture(io.BytesIO(text)) if not isinstance(captured.event, Frame))
    assert sorted(capture.events()) == events
    with pytest.raises(CaptureError, match="senders"):
        decode_capture(b"\n".join(text.replace(b"display", b"%d" % number) for number in range(16)))


def test_frames_before_an_invalid_line_are_decoded() -> None:
    chunks = decode_chunks(json.dumps({"hex": REPLY.hex()}).encode() + b"\n{")
    assert len(next(chunks).readings) == 1
    with pytest.raises(CaptureError, match="line 2"):
        next(chunks)


@pytest.mark.parametrize("data", NOT_CAPTURES.values(), ids=NOT_CAPTURES)
def test_a_file_that_is_not_a_capture_is_refused(data: bytes) -> None:
    with pytest.raises(CaptureError, match="not a capture"):
        decode_capture(data)


def test_an_invalid_argument_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="chunk_size"):
        decode_chunks(REPLY, chunk_size=0)
    with pytest.raises(FileNotFoundError):
        decode_capture(tmp_path / "nowhere")


def test_a_frame_with_invalid_data_is_not_a_reading() -> None:
    malformed = bytearray(REPLY[9:-3])
    malformed[19] = 2
    data = b"".join(
        Frame(0, command, data).encode(start_up=False)
        for command, data in ((0xA0, bytes(malformed)), (0xAA, REPLY[9:-3]), (0xA0, b""), (0xA0, bytes(23)))
    )
    capture = decode_capture(data + REPLY)
    assert len(capture.frames) == 5
    assert capture.readings["offset"].tolist() == [len(data)]
    check(capture, streamed(data + REPLY))


@pytest.mark.parametrize(
    ("name", "count", "readings"),
    [
        ("controller-to-display.bin", 214, 214),
        ("display-to-controller.bin", 214, 0),
        ("controller-night.bin", 356, 356),
        ("display-session.jsonl", 428, 214),
    ],
)
def test_the_sniffed_captures_contain_no_damage(name: str, count: int, readings: int) -> None:
    if not CAPTURES.is_dir():
        pytest.skip("the captures are not available")
    capture = decode_capture(CAPTURES / name)
    assert (len(capture.frames), len(capture.readings), len(capture.damage)) == (count, readings, 0)
    for sender in range(len(capture.senders)):
        frames = capture.frames[capture.frames["sender"] == sender]
        assert (np.diff(frames["offset"]) == frames["length"][:-1] + OVERHEAD).all()
    if not name.endswith("jsonl"):
        check(capture, streamed((CAPTURES / name).read_bytes()))


def test_numpy_is_imported_only_when_used_and_a_missing_numpy_names_the_extra() -> None:
    program = (
        "import sys, tracer_async.capture\n"
        "assert 'numpy' not in sys.modules\n"
        "sys.modules['numpy'] = None\n"
        "try: tracer_async.capture.decode_capture(b'')\n"
        "except tracer_async.MissingExtraError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'tracer-async[bulk]'" in done.stdout
