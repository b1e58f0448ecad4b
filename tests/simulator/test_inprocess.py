"""The in-process transport keeps the contract between asyncio's transports and protocols."""

from __future__ import annotations

import asyncio
from typing import Any

from tracer_async.protocol import Frame, FrameDecoder
from tracer_async.simulator import SimulatedTracer, _inprocess, open_in_process

READ = Frame(0x16, 0xA0, b"").encode()


class Recorder(asyncio.Protocol):
    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.transport: asyncio.BaseTransport | None = None
        self.called = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        self.calls.append(data)
        self.called.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append(("lost", exc))
        self.called.set()


class BufferedRecorder(asyncio.BufferedProtocol):
    def __init__(self) -> None:
        self.received: list[bytes] = []

    def get_buffer(self, sizehint: int) -> bytearray:
        raise AssertionError("data_received is to be called")

    def data_received(self, data: bytes) -> None:
        self.received.append(data)


async def turn() -> None:
    """Let everything happen that the loop has been asked to do by now."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_request_is_answered_in_a_later_turn() -> None:
    transport, recorder = await open_in_process(Recorder)
    assert recorder.calls == ["made"]
    assert recorder.transport is transport
    assert transport.get_extra_info("peername") is None
    transport.write(READ)
    assert recorder.calls == ["made"]
    await turn()
    (reply,) = recorder.calls[1:]
    assert isinstance(FrameDecoder().feed(reply)[0], Frame)
    transport.close()
    await turn()


async def test_a_buffered_protocol_gets_data_received() -> None:
    transport, recorder = await open_in_process(BufferedRecorder)
    transport.writelines([READ[:9], READ[9:], READ])
    await turn()
    assert len(recorder.received) == 2
    transport.close()


async def test_closing_is_reported_once_and_ends_everything() -> None:
    tracer = SimulatedTracer()
    transport, recorder = await open_in_process(Recorder, tracer)
    transport.write(READ)
    transport.close()
    assert transport.is_closing()
    transport.abort()
    transport.write(READ)
    assert recorder.calls == ["made"]
    await turn()
    assert recorder.calls == ["made", ("lost", None)]
    assert len(tracer.requests) == 1


async def test_a_paused_protocol_gets_its_data_when_it_resumes() -> None:
    transport, recorder = await open_in_process(Recorder)
    transport.pause_reading()
    assert not transport.is_reading()
    transport.write(READ + READ)
    await turn()
    assert recorder.calls == ["made"]
    transport.resume_reading()
    transport.resume_reading()
    assert transport.is_reading()
    await turn()
    assert len(recorder.calls) == 3
    transport.close()
    await turn()


async def test_a_protocol_may_pause_with_its_first_reply() -> None:
    class Pausing(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            transport.pause_reading()

    transport, recorder = await open_in_process(Pausing)
    transport.write(READ + READ)
    await turn()
    assert len(recorder.calls) == 2
    transport.resume_reading()
    await turn()
    assert len(recorder.calls) == 3
    transport.close()
    await turn()


async def test_the_protocol_can_be_exchanged() -> None:
    transport, first = await open_in_process(Recorder)
    second = Recorder()
    transport.set_protocol(second)
    assert transport.get_protocol() is second
    transport.write(READ)
    await turn()
    assert (len(first.calls), len(second.calls)) == (1, 1)
    transport.close()
    await turn()


async def test_half_a_request_is_dropped_on_a_quiet_line(monkeypatch: Any) -> None:
    monkeypatch.setattr(_inprocess, "QUIET", 0.0)
    transport, recorder = await open_in_process(Recorder)
    # A header that promises 200 bytes holds back the request behind it until the line is quiet.
    transport.write(b"\xeb\x90\xeb\x90\xeb\x90\x16\xa0\xc8" + READ)
    await recorder.called.wait()
    assert len(recorder.calls) == 2
    transport.write(READ[:8])
    transport.close()
    await turn()


async def test_a_transport_has_no_write_side_to_wait_for() -> None:
    transport, _ = await open_in_process(Recorder)
    transport.set_write_buffer_limits(high=10)
    assert not transport.can_write_eof()
    assert transport.get_write_buffer_size() == 0
    assert transport.get_write_buffer_limits() == (0, 0)
    transport.close()
    await turn()
