"""The decoder's properties (a) to (g), as the design names them."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.events import merged, raw
from tests.protocol.strategies import cut, frames, noise, streams
from tracer_async.protocol import (
    MAX_DATA,
    OVERHEAD,
    START_UP,
    SYNC,
    CorruptFrame,
    DecoderStats,
    Event,
    Frame,
    FrameDecoder,
    Noise,
    Reason,
    crc16,
)

TORN = bytes.fromhex("eb90eb90eb9000a018d204d30400000e005304a5050100001f00000000330a0000995b7f")
LARGEST = Frame(0xFF, 0x55, bytes(range(MAX_DATA)))
REPLY = bytes.fromhex("eb90eb90eb9000a018dc04500d000000005904980500000029000000013a760100d9697f")


@dataclass
class Work:
    """The work that is not done at C speed: the number of searches and of CRC computations."""

    searches: int = 0
    checks: int = 0


@contextmanager
def work() -> Iterator[Work]:
    """Count the decoder's work, without touching the decoder."""
    counted = Work()

    def profile(frame: FrameType, event: str, arg: Any) -> None:
        if event == "c_call":
            counted.searches += isinstance(arg.__self__, bytes | re.Pattern) and arg.__name__ in ("find", "search")
        elif event == "call":
            counted.checks += frame.f_code.co_name == crc16.__name__

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield counted
    finally:
        sys.setprofile(before)


def decode(chunks: list[bytes]) -> list[Event]:
    decoder = FrameDecoder()
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return events + decoder.flush()


@given(streams.flatmap(lambda stream: st.tuples(st.just(stream), cut(stream))))
def test_a_any_split_gives_the_same_events(stream_and_chunks: tuple[bytes, list[bytes]]) -> None:
    stream, chunks = stream_and_chunks
    assert merged(decode(chunks)) == merged(decode([stream]))


@given(streams.flatmap(cut))
def test_b_every_byte_ends_in_exactly_one_event_or_is_pending(chunks: list[bytes]) -> None:
    decoder = FrameDecoder()
    fed = reported = b""
    for chunk in chunks:
        fed += chunk
        reported += b"".join(map(raw, decoder.feed(chunk)))
        assert fed.startswith(reported)
        assert decoder.pending == len(fed) - len(reported)
    reported += b"".join(map(raw, decoder.flush()))
    assert reported == fed
    assert decoder.pending == 0


@given(noise, st.lists(frames, min_size=1, max_size=4), noise, st.data())
def test_c_a_good_frame_is_found_after_any_bytes(
    before: bytes, good: list[Frame], behind: bytes, data: st.DataObject
) -> None:
    stream = before + b"".join(frame.encode(start_up=False) for frame in good) + behind
    found = [event for event in decode(data.draw(cut(stream))) if isinstance(event, Frame)]
    # Noise can contain good frames by chance, or one that contains these. Otherwise each is found, in order.
    swallowed = any(frame.encode(start_up=False) in other.data for frame in good for other in found)
    remaining = iter(found)
    assert swallowed or all(frame in remaining for frame in good)


@given(frames, st.integers(MAX_DATA + 1, 255), st.binary(min_size=2, max_size=2).filter(lambda ids: 0xEB not in ids))
def test_d_a_header_with_a_length_over_200_is_damaged_at_once(good: Frame, length: int, ids: bytes) -> None:
    decoder = FrameDecoder()
    claim = SYNC + ids + bytes([length])
    # EB is the only length that can also begin the sync bytes of a frame. It stays pending until that is decided.
    held = claim[-1:] if length == 0xEB else b""
    assert decoder.feed(claim) == [CorruptFrame(claim.removesuffix(held), Reason.LENGTH)]
    assert merged(decoder.feed(good.encode(start_up=False))) == [*([Noise(held)] if held else []), good]
    assert decoder.pending == 0


@given(streams.flatmap(cut))
def test_e_at_most_the_bytes_of_one_frame_are_pending(chunks: list[bytes]) -> None:
    decoder = FrameDecoder()
    for chunk in chunks:
        decoder.feed(chunk)
        assert decoder.pending < OVERHEAD + MAX_DATA


@pytest.mark.parametrize(
    "hostile",
    [
        b"\xeb",
        b"\xeb\x90",
        SYNC,
        SYNC + b"\x00\xa0\xc8",
        SYNC + b"\x00\xa0\xc8\x7f",
        SYNC + b"\x00\xa0\xc6\x7f",
        SYNC + b"\xeb\x90\xc8\x7f\x7f",
        SYNC + b"\x00\xa0\xff",
    ],
)
def test_f_the_time_is_linear_for_hostile_bytes(hostile: bytes) -> None:
    """Counts the work that is not done at C speed: searches and CRC computations per byte."""
    done = []
    for copies in (1000, 8000):
        stream = hostile * copies
        chunks = [stream[at : at + 256] for at in range(0, len(stream), 256)]
        with work() as counted:
            decode(chunks)
        assert counted.searches <= len(stream) + 3 * len(chunks)
        assert counted.checks <= len(stream) / 4
        done.append((counted.searches / len(stream), counted.checks / len(stream)))
    assert all(late <= early * 1.1 + 0.01 for early, late in zip(*done, strict=True))


def test_f_waiting_for_the_rest_of_a_frame_costs_no_search() -> None:
    """Even if it arrives in very small chunks, as on a serial port."""
    decoder = FrameDecoder()
    with work() as counted:
        events = [event for byte in LARGEST.encode(start_up=False) for event in decoder.feed(bytes((byte,)))]
    assert events == [LARGEST]
    # One search finds the header. The other finds it again together with the frame.
    assert 1 <= counted.searches <= 2


@pytest.mark.parametrize("within", range(1, len(SYNC)))
@pytest.mark.parametrize("torn", [bytes(3), bytes(20)])
def test_d_a_false_header_that_ends_within_the_next_sync_bytes_hides_no_frame(within: int, torn: bytes) -> None:
    claim = SYNC + b"\x00\xa0" + bytes((9 + len(torn) + within - OVERHEAD,)) + torn
    events = merged(decode([claim + REPLY]))
    assert [event for event in events if isinstance(event, Frame)] == FrameDecoder().feed(REPLY)
    assert b"".join(map(raw, events)) == claim + REPLY


def test_a_frame_of_200_bytes_is_accepted() -> None:
    assert decode([LARGEST.encode(start_up=False)]) == [LARGEST]


@given(frames, st.data())
def test_g_flush_discards_an_incomplete_frame(frame: Frame, data: st.DataObject) -> None:
    half = frame.encode(start_up=False)
    half = half[: data.draw(st.integers(1, len(half) - 1))]
    decoder = FrameDecoder()
    assert merged(decoder.feed(half)) in ([], [Noise(half)])
    decoder.flush()
    assert decoder.pending == 0
    assert decoder.feed(REPLY)[-1] == Frame(0x00, 0xA0, REPLY[9:33])


def test_g_flush_finds_the_frame_after_a_damaged_length() -> None:
    decoder = FrameDecoder()
    assert decoder.feed(SYNC + b"\x00\xa0\xc0" + REPLY) == []
    assert decoder.flush() == [
        CorruptFrame(SYNC + b"\x00\xa0\xc0", Reason.UNFINISHED),
        Frame(0x00, 0xA0, REPLY[9:33]),
    ]


@given(streams.flatmap(cut))
def test_in_frame_means_that_a_header_is_pending(chunks: list[bytes]) -> None:
    decoder = FrameDecoder()
    for chunk in chunks:
        decoder.feed(chunk)
        assert not decoder.in_frame or decoder.pending >= len(SYNC) + 3
    decoder.flush()
    states = [decoder.in_frame]
    for part in (REPLY[:8], REPLY[8:9], REPLY[9:-1], REPLY[-1:]):
        decoder.feed(part)
        states.append(decoder.in_frame)
    assert states == [False, False, True, True, False]


def test_the_frames_behind_an_incomplete_one_are_counted_with_what_precedes_them() -> None:
    decoder = FrameDecoder()
    begun, damaged = SYNC + b"\x00\xa0\xc8", REPLY[:-1] + b"\x00"
    for time in (1, 2):
        assert decoder.feed(begun) == []
        assert decoder.look_ahead() == []
        assert decoder.feed(damaged + b"\x01" + REPLY) == []
        assert decoder.look_ahead() == [
            CorruptFrame(begun, Reason.UNFINISHED),
            CorruptFrame(damaged, Reason.END),
            Noise(b"\x01"),
            Frame(0x00, 0xA0, REPLY[9:33]),
        ]
        assert decoder.stats == DecoderStats(time, 2 * time, time * len(begun + damaged), time)
        assert decoder.pending == 0


def test_a_truncated_frame_does_not_hide_the_next_frame() -> None:
    assert decode([TORN + REPLY]) == [CorruptFrame(TORN, Reason.CRC), Frame(0x00, 0xA0, REPLY[9:33])]


def test_a_wrong_end_byte_and_a_wrong_crc_have_different_reasons() -> None:
    assert decode([REPLY[:-1] + b"\x00"]) == [CorruptFrame(REPLY[:-1] + b"\x00", Reason.END)]


@pytest.mark.parametrize("stray", [b"\xeb", b"\x90", b"\xeb\x90", b"\xeb\x90\xeb\x90", b"\x00\xeb\x90\xeb\x90\xeb"])
def test_stray_sync_bytes_before_a_frame_are_noise(stray: bytes) -> None:
    assert decode([stray + REPLY]) == [Noise(stray), Frame(0x00, 0xA0, REPLY[9:33])]


def test_start_up_bytes_are_noise() -> None:
    assert decode([Frame(0x16, 0xA0, b"").encode()]) == [Noise(START_UP), Frame(0x16, 0xA0, b"")]


def test_a_crc_may_contain_the_end_byte() -> None:
    reply = bytes.fromhex("eb90eb90eb9000a018e4041406000000004c04b30500000029000000012b0300007f917f")
    assert decode([reply]) == [Frame(0x00, 0xA0, reply[9:33])]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_of_bytes_can_be_fed_and_reused(kind: type) -> None:
    decoder = FrameDecoder()
    half = bytearray(REPLY[:20])
    decoder.feed(kind(half))
    half[:] = bytes(20)
    (frame,) = decoder.feed(REPLY[20:])
    assert frame == Frame(0x00, 0xA0, REPLY[9:33])
    assert type(frame.data) is bytes


@given(st.lists(streams, max_size=5), st.booleans())
def test_stats_agree_with_the_events(chunks: list[bytes], looks_ahead: bool) -> None:
    decoder = FrameDecoder()
    events: list[Event] = []
    for chunk in chunks:
        events += decoder.feed(chunk)
        if looks_ahead:
            events += decoder.look_ahead()
    events += decoder.flush()
    assert b"".join(map(raw, events)) == b"".join(chunks)
    corrupt = [event.raw for event in events if isinstance(event, CorruptFrame)]
    assert decoder.stats == DecoderStats(
        frames=sum(isinstance(event, Frame) for event in events),
        corrupt_frames=len(corrupt),
        corrupt_bytes=sum(map(len, corrupt)),
        noise_bytes=sum(len(event.raw) for event in events if isinstance(event, Noise)),
    )


@given(streams)
def test_noise_within_one_call_comes_as_one_event(stream: bytes) -> None:
    events = FrameDecoder().feed(stream)
    assert not any(isinstance(one, Noise) and isinstance(two, Noise) for one, two in pairwise(events))


def test_reprs_show_the_bytes_in_hex() -> None:
    assert repr(Noise(b"\xeb")) == "Noise(bytes.fromhex('eb'))"
    assert repr(CorruptFrame(b"\xeb", Reason.CRC)) == "CorruptFrame(bytes.fromhex('eb'), wrong CRC)"
