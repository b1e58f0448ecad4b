"""The option `recorder`: what a client sends and receives is in the file, and nothing else changes."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tracer_async import Fleet, LinkRefusedError, TracerClient
from tracer_async.capture import LinkChange, Recorder, Recording
from tracer_async.protocol import Frame, FrameDecoder
from tracer_async.simulator import SimulatedTracer, open_in_process

ROOT = Path(__file__).parents[2]


class Controller:
    """A controller on TCP that keeps all bytes in both directions."""

    def __init__(self) -> None:
        self.received = b""
        self.sent = b""
        self._tracer = SimulatedTracer()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = FrameDecoder()
        while data := await reader.read(4096):
            self.received += data
            for event in decoder.feed(data):
                if isinstance(event, Frame):
                    reply = b"\xff" + (self._tracer.answer(event) or b"")
                    self.sent += reply
                    writer.write(reply)
        writer.close()


async def test_a_recording_has_what_the_controller_received_and_sent(tmp_path: Path) -> None:
    controller = Controller()
    server = await asyncio.start_server(controller.serve, "127.0.0.1", 0)
    url = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, TracerClient(url, timeout=3.0, recorder=Recorder(tmp_path / "line.jsonl")) as tracer:
        for _ in range(5):
            await tracer.read_realtime()
        await tracer.set_load(False)
    recording = Recording.read(tmp_path / "line.jsonl")
    assert recording.header is not None
    assert (recording.header.recorded, recording.header.timeout) == (url, 3.0)
    for sender, data in (("client", controller.received), ("controller", controller.sent)):
        assert b"".join(burst.data for burst in recording.bursts if burst.sender == sender) == data
    assert [(change.up, change.by_client) for change in recording.link_changes] == [(True, False), (False, True)]
    times = [record.t for record in recording.records if isinstance(record, LinkChange)]
    assert [burst.t or 0.0 for burst in recording.bursts] == sorted(burst.t or 0.0 for burst in recording.bursts)
    assert times[0] <= (recording.bursts[0].t or 0.0) <= (recording.bursts[-1].t or 0.0) <= times[-1]


async def test_everything_is_written_when_the_client_is_closed(tmp_path: Path) -> None:
    tracer = TracerClient("sim:", recorder=Recorder(tmp_path / "line.jsonl"))
    await tracer.open()
    await tracer.read_realtime()
    await tracer.aclose()
    assert len(Recording.read(tmp_path / "line.jsonl").bursts) == 2


async def test_everything_is_written_when_a_program_ends_without_closing(tmp_path: Path) -> None:
    program = (
        "import asyncio, os, sys\n"
        "from tracer_async import TracerClient\n"
        "from tracer_async.capture import Recorder\n"
        "async def main():\n"
        "    tracer = TracerClient('sim:', recorder=Recorder(sys.argv[1]))\n"
        "    await tracer.open()\n"
        "    await tracer.read_realtime()\n"
        "asyncio.run(main())\n"
    )
    path = tmp_path / "line.jsonl"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(path), cwd=ROOT)
    assert await process.wait() == 0
    assert len(Recording.read(path).bursts) == 2


async def test_a_lost_connection_is_in_the_recording(tmp_path: Path) -> None:
    lost = asyncio.Event()

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        lost.set()
        writer.transport.abort()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    url = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, TracerClient(url, recorder=Recorder(tmp_path / "line.jsonl")) as tracer:
        with pytest.raises(ConnectionError):
            await tracer.read_realtime()
    _, down, *_ = Recording.read(tmp_path / "line.jsonl").link_changes
    assert not down.up
    assert not down.by_client


async def test_a_recorder_is_closed_if_the_client_cannot_connect(tmp_path: Path, unused_tcp_port: int) -> None:
    recorder = Recorder(tmp_path / "line.jsonl")
    with pytest.raises(LinkRefusedError):
        await TracerClient(f"tcp://127.0.0.1:{unused_tcp_port}", recorder=recorder).open()
    assert Recording.read(tmp_path / "line.jsonl").header is not None


async def test_two_clients_cannot_share_a_recorder(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "line.jsonl")
    async with TracerClient("sim:", recorder=recorder) as tracer:
        with pytest.raises(RuntimeError, match="one client"):
            await TracerClient("sim:?seed=2", recorder=recorder).open()
        await tracer.read_realtime()
    assert len(Recording.read(tmp_path / "line.jsonl").bursts) == 2


async def test_each_controller_of_a_fleet_can_have_a_recorder(tmp_path: Path) -> None:
    async with Fleet() as fleet:
        for name in ("one", "two"):
            fleet.add("sim:", interval=0.01, name=name, recorder=Recorder(tmp_path / name))
        seen = set()
        async for name, _ in fleet:
            seen.add(name)
            if len(seen) == 2:
                break
    assert all(len(Recording.read(tmp_path / name).bursts) >= 2 for name in seen)


async def test_without_a_recorder_and_a_log_nothing_is_called_for_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    from tracer_async.client._trace import Trace

    def fail(*_: object) -> None:
        raise AssertionError("bytes were traced")

    monkeypatch.setattr(Trace, "sent", fail)
    monkeypatch.setattr(Trace, "received", fail)
    async with TracerClient(open_in_process) as tracer:
        await tracer.read_realtime()
