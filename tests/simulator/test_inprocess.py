"""The in-process transport meets the contract between asyncio transports and protocols."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.simulator.recorder import Recorder, turn
from tracer_async.protocol import Frame, FrameDecoder
from tracer_async.simulator import SimulatedTracer, _inprocess, open_in_process

READ = Frame(0x16, 0xA0, b"").encode()


class BufferedRecorder(asyncio.BufferedProtocol):
    def __init__(self) -> None:
        self.received: list[bytes] = []

    def get_buffer(self, sizehint: int) -> bytearray:
        raise AssertionError("data_received must be called instead")

    def data_received(self, data: bytes) -> None:
        self.received.append(data)


async def test_a_request_is_answered_in_a_later_loop_iteration() -> None:
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


async def test_closing_is_reported_once_and_stops_all_replies() -> None:
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


async def test_a_paused_protocol_receives_its_data_after_resume_reading() -> None:
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


async def test_a_protocol_can_pause_reading_in_data_received() -> None:
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


async def test_set_protocol_redirects_later_replies() -> None:
    transport, first = await open_in_process(Recorder)
    second = Recorder()
    transport.set_protocol(second)
    assert transport.get_protocol() is second
    transport.write(READ)
    await turn()
    assert (len(first.calls), len(second.calls)) == (1, 1)
    transport.close()
    await turn()


async def test_an_incomplete_request_is_discarded_after_a_pause(monkeypatch: Any) -> None:
    monkeypatch.setattr(_inprocess, "PARTIAL_REQUEST_TIMEOUT", 0.0)
    transport, recorder = await open_in_process(Recorder)
    # After a header that announces 200 bytes, the port waits for them before it looks at the next request.
    transport.write(b"\xeb\x90\xeb\x90\xeb\x90\x16\xa0\xc8" + READ)
    await recorder.called.wait()
    assert len(recorder.calls) == 2
    transport.write(READ[:8])
    transport.close()
    await turn()


async def test_the_write_buffer_is_always_empty() -> None:
    transport, _ = await open_in_process(Recorder)
    transport.set_write_buffer_limits(high=10)
    assert not transport.can_write_eof()
    assert transport.get_write_buffer_size() == 0
    assert transport.get_write_buffer_limits() == (0, 0)
    transport.close()
    await turn()
