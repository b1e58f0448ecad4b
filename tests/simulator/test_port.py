"""A port answers each good request once, in order, for any chunks of bytes. It answers nothing else."""

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
READ = bytes.fromhex("EB90EB90EB90 01 A0 01 03 BDBB 7F")  # request of the MT-5 meter in a capture


def stopped_port() -> SimulatedPort:
    return SimulatedPort(SimulatedTracer(clock=lambda: 0.0))


@settings(deadline=None)
@given(requests=st.lists(REQUESTS, max_size=8), data=st.data())
def test_any_chunking_gives_the_same_replies(requests: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(requests)
    whole = stopped_port().feed(stream)
    port, chunked, rest = stopped_port(), [], stream
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
def test_noise_gets_no_reply(noise: bytes) -> None:
    assert stopped_port().feed(noise) == []


def test_a_damaged_request_gets_no_reply_and_the_next_one_does() -> None:
    port = stopped_port()
    assert port.feed(READ[:-2] + b"\x00\x7f") == []
    assert len(port.feed(READ)) == 1


def test_an_incomplete_request_is_discarded_by_flush() -> None:
    port = stopped_port()
    # After a header that announces 200 bytes, the port waits for them before it looks at the next request.
    assert port.feed(b"\xeb\x90\xeb\x90\xeb\x90\x16\xa0\xc8" + READ) == []
    assert port.pending > 0
    assert len(port.flush()) == 1
    assert port.pending == 0
    assert port.feed(READ[:7]) == []
    assert port.flush() == []
    assert len(port.feed(READ)) == 1


def test_baud_pacing_sends_replies_in_sequence_at_9600_baud() -> None:
    pacing, byte = BaudPacing(), 10 / 9600
    pacing.receive(18, 100.0)
    assert pacing.send(36) == pytest.approx(100.0 + 54 * byte)  # 56 ms
    assert pacing.send(13) == pytest.approx(100.0 + 67 * byte)
    # A request that arrives during a reply is received at the same time, because the line is full duplex.
    pacing.receive(18, 100.0 + 18 * byte)
    assert pacing.send(36) == pytest.approx(100.0 + 103 * byte)
    pacing.receive(18, 200.0)
    assert pacing.send(36) == pytest.approx(200.0 + 54 * byte)
