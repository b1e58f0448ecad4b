"""Reading captures: the module's two rules, and its three formats."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.strategies import streams
from tracer_async import CaptureError, CorruptFrame, Frame, Noise
from tracer_async.capture import NOISE_PIECE, CapturedEvent, CaptureFormat, guess_format, read_capture

TORN = bytes.fromhex("eb90eb90eb9000a018d204d30400000e005304a5050100001f00000000330a0000995b7f")
REPLY = bytes.fromhex("eb90eb90eb9000a018dc04500d000000005904980500000029000000013a760100d9697f")


class Pipe(io.RawIOBase):
    """A source that gives as many bytes at a time as it is told."""

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
def test_events_do_not_depend_on_chunks_and_hold_every_byte_at_its_offset(stream: bytes, size: int) -> None:
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
def test_hexadecimal_in_all_its_spellings(text: str, size: int) -> None:
    (captured,) = read_capture(Pipe(text.encode(), size))  # type: ignore[arg-type]
    assert captured == (0, "", Frame(0, 0xA0, REPLY[9:-3]))


@pytest.mark.parametrize("prefix", ["", "0x", "eb90 "])
def test_hexadecimal_without_a_single_space_is_read_in_pieces(prefix: str) -> None:
    events = read((prefix + REPLY.hex() * 5000).encode())
    assert sum(isinstance(captured.event, Frame) for captured in events) == 5000


def test_json_lines_have_a_decoder_for_each_sender() -> None:
    lines = [("a", REPLY[:20]), ("b", REPLY), ("a", REPLY[20:])]
    text = "\n\n".join(json.dumps({"from": sender, "hex": data.hex(), "time": 1}) for sender, data in lines)
    assert [(captured.sender, captured.offset) for captured in read(text.encode())] == [("b", 0), ("a", 0)]


def test_damage_is_an_event_like_any_other() -> None:
    damaged, good = read(TORN + REPLY)
    assert isinstance(damaged.event, CorruptFrame)
    assert good.offset == len(TORN)


def test_noise_comes_in_bounded_pieces() -> None:
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
def test_the_format_is_found_out(head: bytes, expected: CaptureFormat) -> None:
    assert guess_format(head) is expected


def test_a_byte_order_mark_belongs_to_text_alone() -> None:
    mark = b"\xef\xbb\xbf"
    assert [captured.size for captured in read(mark + REPLY)] == [len(mark), len(REPLY)]
    assert [captured.size for captured in read(mark + REPLY.hex().encode())] == [len(REPLY)]


NO_CAPTURE = {
    "empty": b"",
    "blank": b" \n",
    "png": b"\x89PNG\r\n\x1a\n" * 500,
    "text": b"plain text",
    "hex without a frame": b"eb90",
    "json": b"[1, 2]",
    "lines without a frame": b'{"hex": "eb90"}',
    "zeros": bytes(5_000_000),
}


@pytest.mark.parametrize("data", NO_CAPTURE.values(), ids=NO_CAPTURE)
def test_what_is_no_capture_is_refused(data: bytes) -> None:
    with pytest.raises(CaptureError, match="no capture"):
        read(data)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("eb9", "line 3: 'eb9' is no bytes"),
        ("hello", "line 3: 'hello' is no bytes"),
    ],
)
def test_a_wrong_word_is_named_after_all_that_stands_before_it(bad: str, words: str) -> None:
    events = read_capture(io.BytesIO(f"{REPLY.hex()}\n\n{bad} eb".encode()), CaptureFormat.HEX)
    assert isinstance(next(events).event, Frame)
    with pytest.raises(CaptureError, match=words):
        list(events)


@pytest.mark.parametrize(
    "line", ["{", "[]", "1", '{"from": "a"}', '{"from": 1, "hex": ""}', '{"hex": "e"}', '{"hex": 1}']
)
def test_a_line_that_is_none_is_named_after_all_that_stands_before_it(line: str) -> None:
    events = read_capture(io.BytesIO(json.dumps({"hex": REPLY.hex()}).encode() + b"\n" + line.encode()))
    assert isinstance(next(events).event, Frame)
    with pytest.raises(CaptureError, match="line 2 is not of the form"):
        list(events)


def test_neither_a_line_nor_the_senders_grow_without_bounds() -> None:
    with pytest.raises(CaptureError, match="line of more than"):
        read(b'{"hex": "' + b"eb90" * 500_000)
    senders = "\n".join(json.dumps({"from": str(number), "hex": REPLY.hex()}) for number in range(17))
    with pytest.raises(CaptureError, match="senders"):
        read(senders.encode())
