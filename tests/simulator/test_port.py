"""A port answers each good request once, in order, however the bytes come, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer_async.protocol import Frame, FrameDecoder
from tracer_async.simulator import SimulatedTracer
from tracer_async.simulator._port import BaudPacing, SimulatedPort

REQUESTS = st.builds(
    lambda controller_id, request, start_up: Frame(controller_id, *request).encode(start_up=start_up),
    st.sampled_from([0x16, 0x01, 0x00]),
    st.sampled_from([(0xA0, b""), (0xA0, b"\x03"), (0xAA, b"\x00"), (0xAA, b"\x01")]),
    st.booleans(),
)
READ = bytes.fromhex("EB90EB90EB90 01 A0 01 03 BDBB 7F")  # the meter's, from a capture


def standing_still() -> SimulatedPort:
    return SimulatedPort(SimulatedTracer(clock=lambda: 0.0))


@settings(deadline=None)
@given(requests=st.lists(REQUESTS, max_size=8), data=st.data())
def test_any_chunking_gives_the_same_replies(requests: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(requests)
    whole = standing_still().feed(stream)
    port, chunked, rest = standing_still(), [], stream
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        chunked += port.feed(rest[:size])
        rest = rest[size:]
    assert chunked == whole
    assert port.pending == 0
    assert len(whole) == len(requests)
    decoder = FrameDecoder()
    replies = decoder.feed(b"".join(whole))
    commands = [request[request.index(b"\xeb") + 7] for request in requests]
    assert [(reply.controller_id, reply.command) for reply in replies if isinstance(reply, Frame)] == [
        (0, command) for command in commands
    ]
    assert decoder.stats.noise_bytes == decoder.stats.corrupt_bytes == decoder.pending == 0


@given(st.binary(max_size=300))
def test_noise_is_not_answered(noise: bytes) -> None:
    assert standing_still().feed(noise) == []


def test_a_damaged_request_is_not_answered_and_the_next_is() -> None:
    port = standing_still()
    assert port.feed(READ[:-2] + b"\x00\x7f") == []
    assert len(port.feed(READ)) == 1


def test_half_a_request_is_dropped_once_the_line_is_quiet() -> None:
    port = standing_still()
    # A header that promises 200 bytes would hold back the request behind it.
    assert port.feed(b"\xeb\x90\xeb\x90\xeb\x90\x16\xa0\xc8" + READ) == []
    assert port.pending > 0
    assert len(port.flush()) == 1
    assert port.pending == 0
    assert port.feed(READ[:7]) == []
    assert port.flush() == []
    assert len(port.feed(READ)) == 1


def test_paced_replies_leave_one_after_another_at_9600_baud() -> None:
    pacing, byte = BaudPacing(), 10 / 9600
    pacing.receive(18, 100.0)
    assert pacing.send(36) == pytest.approx(100.0 + 54 * byte)  # 56 ms
    assert pacing.send(13) == pytest.approx(100.0 + 67 * byte)
    # A second request that comes in the middle of the first reply is received meanwhile: only the replies queue.
    pacing.receive(18, 100.0 + 18 * byte)
    assert pacing.send(36) == pytest.approx(100.0 + 103 * byte)
    pacing.receive(18, 200.0)
    assert pacing.send(36) == pytest.approx(200.0 + 54 * byte)
