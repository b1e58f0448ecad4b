"""Reading captures as events, in all three formats."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.capture.samples import NOT_CAPTURES
from tests.protocol.strategies import streams
from tracer_async import CaptureError, CorruptFrame, Frame, Noise
from tracer_async.capture import NOISE_PIECE, CapturedEvent, CaptureFormat, guess_format, read_capture

TORN = bytes.fromhex("eb90eb90eb9000a018d204d30400000e005304a5050100001f00000000330a0000995b7f")
REPLY = bytes.fromhex("eb90eb90eb9000a018dc04500d000000005904980500000029000000013a760100d9697f")


class Pipe(io.RawIOBase):
    """A source that returns at most *size* bytes per read."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data = io.BytesIO(data)
        self._size = size

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, self._size))


def read(data: bytes, capture_format: CaptureFormat | None = None) -> list[CapturedEvent]:
    return list(read_capture(io.BytesIO(data), capture_format))


def raw(captured: CapturedEvent) -> bytes:
    event = captured.event
    return event.encode(start_up=False) if isinstance(event, Frame) else event.raw


@given(streams, st.integers(1, 300))
def test_events_contain_every_byte_at_its_offset_for_any_chunks(stream: bytes, size: int) -> None:
    data = stream + REPLY
    events = read(data, CaptureFormat.BINARY)
    assert list(read_capture(Pipe(data, size), CaptureFormat.BINARY)) == events  # type: ignore[arg-type]
    assert b"".join(map(raw, events)) == data
    for captured in events:
        assert data[captured.offset : captured.offset + captured.size] == raw(captured)


HEX = {
    "plain": REPLY.hex(),
    "spaces": REPLY.hex(" ").upper(),
    "colons": REPLY.hex(":"),
    "C": ", ".join(f"0x{byte:02X}" for byte in REPLY),
    "Arduino": " ".join(f"{byte:X}" for byte in REPLY),
    "escapes": "".join(f"\\x{byte:02x}" for byte in REPLY),
    "lines": "\r\n".join(REPLY.hex()[i : i + 10] for i in range(0, 72, 10)),
    "byte order mark": "\ufeff" + REPLY.hex(),
}


@pytest.mark.parametrize("text", HEX.values(), ids=HEX)
@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_every_hexadecimal_notation_is_read(text: str, size: int) -> None:
    (captured,) = read_capture(Pipe(text.encode(), size))  # type: ignore[arg-type]
    assert captured == (0, "", Frame(0, 0xA0, REPLY[9:-3]))


@pytest.mark.parametrize("prefix", ["", "0x", "eb90 "])
def test_long_hexadecimal_text_without_separators_is_read(prefix: str) -> None:
    events = read((prefix + REPLY.hex() * 5000).encode())
    assert sum(isinstance(captured.event, Frame) for captured in events) == 5000


def test_json_lines_are_decoded_separately_for_each_sender() -> None:
    lines = [("a", REPLY[:20]), ("b", REPLY), ("a", REPLY[20:])]
    text = "\n\n".join(json.dumps({"from": sender, "hex": data.hex(), "time": 1}) for sender, data in lines)
    assert [(captured.sender, captured.offset) for captured in read(text.encode())] == [("b", 0), ("a", 0)]


def test_a_damaged_frame_is_an_event() -> None:
    damaged, good = read(TORN + REPLY)
    assert isinstance(damaged.event, CorruptFrame)
    assert good.offset == len(TORN)


def test_long_noise_is_split_into_bounded_events() -> None:
    events = read(bytes(10_000) + REPLY)
    assert [captured.size for captured in events] == [NOISE_PIECE, NOISE_PIECE, 10_000 - 2 * NOISE_PIECE, len(REPLY)]
    assert all(isinstance(captured.event, Noise) for captured in events[:3])


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (REPLY, CaptureFormat.BINARY),
        (b"banner\r\n" + REPLY, CaptureFormat.BINARY),
        (b"eb90", CaptureFormat.HEX),
        (b'\n {"hex": ""}', CaptureFormat.JSON_LINES),
        (b"\xef\xbb\xbfEB90", CaptureFormat.HEX),
    ],
)
def test_the_format_is_detected(head: bytes, expected: CaptureFormat) -> None:
    assert guess_format(head) is expected


def test_a_byte_order_mark_is_skipped_only_in_text() -> None:
    mark = b"\xef\xbb\xbf"
    assert [captured.size for captured in read(mark + REPLY)] == [len(mark), len(REPLY)]
    assert [captured.size for captured in read(mark + REPLY.hex().encode())] == [len(REPLY)]


@pytest.mark.parametrize("data", NOT_CAPTURES.values(), ids=NOT_CAPTURES)
def test_a_file_that_is_not_a_capture_is_refused(data: bytes) -> None:
    with pytest.raises(CaptureError, match="not a capture"):
        read(data)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("eb9", "line 3: 'eb9' is not hexadecimal"),
        ("hello", "line 3: 'hello' is not hexadecimal"),
    ],
)
def test_an_invalid_word_raises_after_the_events_before_it(bad: str, words: str) -> None:
    events = read_capture(io.BytesIO(f"{REPLY.hex()}\n\n{bad} eb".encode()), CaptureFormat.HEX)
    assert isinstance(next(events).event, Frame)
    with pytest.raises(CaptureError, match=words):
        list(events)


@pytest.mark.parametrize(
    "line", ["{", "[]", "1", '{"from": "a"}', '{"from": 1, "hex": ""}', '{"hex": "e"}', '{"hex": 1}']
)
def test_an_invalid_line_raises_after_the_events_before_it(line: str) -> None:
    events = read_capture(io.BytesIO(json.dumps({"hex": REPLY.hex()}).encode() + b"\n" + line.encode()))
    assert isinstance(next(events).event, Frame)
    with pytest.raises(CaptureError, match="line 2 is not of the form"):
        list(events)


def test_the_line_length_and_the_number_of_senders_are_limited() -> None:
    with pytest.raises(CaptureError, match="line 1 has more than 1048576 bytes"):
        read(b'{"hex": "' + b"eb90" * 500_000)
    senders = "\n".join(json.dumps({"from": str(number), "hex": REPLY.hex()}) for number in range(17))
    with pytest.raises(CaptureError, match="senders"):
        read(senders.encode())
