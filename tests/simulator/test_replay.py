"""A recording as a controller: a client gets what the recorded client got."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.promise.virtual_time import run_virtual, virtual_time
from tracer_async import Frame, Reading, ResponseTimeoutError, TracerClient
from tracer_async.capture import Burst, LinkChange, Record, Recorder, Recording, RecordingHeader, readings_of
from tracer_async.simulator import Faults, Replay, SimulatedTracer, open_in_process, serve_pty, serve_tcp

REPORT = Path(__file__).parents[1] / "recordings" / "report.jsonl"
REQUEST = Frame(0x16, 0xA0, b"").encode()
ON = Frame(0x16, 0xAA, b"\1").encode()


def reply(number: int) -> bytes:
    """A frame that can be told from others."""
    return Frame(0, 0xA0, bytes((number,))).encode(start_up=False)


def recorded(*bursts: tuple[float, str, bytes]) -> Recording:
    return Recording.of([RecordingHeader("sim:", timeout=1.0), *(Burst(who, data, t, t) for t, who, data in bursts)])


class Program(asyncio.Protocol):
    """A program that keeps what it receives, each with the time."""

    def __init__(self) -> None:
        self.received: list[tuple[float, bytes]] = []
        self.lost_at: float | None = None

    def data_received(self, data: bytes) -> None:
        self.received.append((asyncio.get_running_loop().time(), data))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost_at = asyncio.get_running_loop().time()


async def answers(replay: Replay, *requests: bytes, pause: float = 5.0) -> list[bytes]:
    """Send *requests*, one each *pause* seconds, and return what came after each of them."""
    transport, program = await open_in_process(Program, replay)
    found = []
    for request in requests:
        before = len(program.received)
        transport.write(request)
        await asyncio.sleep(pause)
        found.append(b"".join(data for _, data in program.received[before:]))
    transport.close()
    return found


# The same readings

Outcome = tuple[bytes | None, str]


def outcomes(readings: Iterable[Reading]) -> list[Outcome]:
    return [(each.data.to_bytes() if each.data else None, type(each.error).__name__) for each in readings]


def poll(
    count: int, replay: Replay | None = None, *faults: str, seed: int = 0, into: Path | None = None
) -> list[Reading]:
    """Read *count* times, every 5 s of virtual time: from a recording, or else from a simulated controller."""
    found: list[Reading] = []
    recorder = Recorder(into) if into else None

    async def main() -> None:
        controller = replay or SimulatedTracer(seed=1, clock=asyncio.get_running_loop().time)
        faulty = Faults(*faults, seed=seed)

        async def connect(protocol: Callable[[], Any]) -> tuple[Any, Any]:
            return await open_in_process(protocol, controller, faults=faulty)

        async with TracerClient(connect, recorder=recorder) as tracer:
            async for reading in tracer.poll(5.0):
                found.append(reading)
                if len(found) == count:
                    return

    run_virtual(main)
    if recorder:
        recorder.close()
    return found


FAULTS = (
    "late=1.5s@5%",
    "late=300ms@10%",
    "flip@5%",
    "cut@3%",
    "drop@5%",
    "double@5%",
    "stray@10%",
    "drip@3%",
    "tear@5%",
)


@pytest.mark.parametrize("seed", range(3))
def test_an_hour_gives_the_same_readings_at_each_speed(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "hour.jsonl"
    original = poll(720, None, *FAULTS, seed=seed, into=path)
    recording = Recording.read(path)
    assert recording.bursts[-1].t == pytest.approx(3600, abs=20)
    assert not recording.damaged
    assert len({reading.data for reading in original}) > 100  # they differ, so a wrong order would be seen
    for speed in (1.0, 60.0, 0.0):
        assert outcomes(poll(720, Replay(recording, speed=speed))) == outcomes(original), speed
    # Without a client, the same good readings are found. They are not older than the client stated: a connection in
    # memory cannot tell the client when its input was empty.
    good = [reading for reading in original if reading.ok]
    found = [reading for reading in readings_of(recording) if reading.ok]
    assert outcomes(found) == outcomes(good)
    assert all(mine.age <= clients.age + 1e-5 for mine, clients in zip(found, good, strict=True))
    assert sum(mine.age >= clients.age - 1e-5 for mine, clients in zip(found, good, strict=True)) > 0.98 * len(good)


def test_disconnects_are_replayed(tmp_path: Path) -> None:
    path, again = tmp_path / "line.jsonl", tmp_path / "again.jsonl"
    original = poll(200, None, "hangup@10%", "banner=hello", seed=2, into=path)
    assert outcomes(poll(200, Replay(Recording.read(path)), into=again)) == outcomes(original)
    first, second = Recording.read(path), Recording.read(again)
    assert lost(first) == lost(second) > 10
    assert [(each.sender, each.data) for each in second.bursts] == [(each.sender, each.data) for each in first.bursts]


def lost(recording: Recording) -> int:
    """Return how often the other side closed the connection."""
    return sum(not change.up and not change.by_client for change in recording.link_changes)


def test_the_report_in_the_docs_has_what_it_says() -> None:
    bad = [reading for reading in readings_of(Recording.read(REPORT)) if not reading.ok]
    assert len(bad) == 3


# The rules


@virtual_time
async def test_bytes_come_with_the_gaps_of_the_recording() -> None:
    recording = recorded((3.0, "client", REQUEST), (3.2, "controller", b"a"), (3.7, "controller", b"b"))
    for speed, gaps in ((1.0, [0.2, 0.7]), (2.0, [0.1, 0.35]), (0.0, [0.0, 0.0]), (0.1, [2.0, 7.0])):
        transport, program = await open_in_process(Program, Replay(recording, speed=speed))
        began = asyncio.get_running_loop().time()
        transport.write(REQUEST)
        await asyncio.sleep(10)
        assert [data for _, data in program.received if data] in ([b"a", b"b"], [b"ab"])
        assert [time - began for time, _ in program.received] == pytest.approx(gaps)
        transport.close()


@virtual_time
async def test_what_was_late_stays_late_at_any_speed() -> None:
    recording = recorded((0.0, "client", REQUEST), (1.5, "controller", b"late"), (9.0, "client", REQUEST))
    for speed in (1.0, 60.0, 0.0):
        transport, program = await open_in_process(Program, Replay(recording, speed=speed))
        began = asyncio.get_running_loop().time()
        transport.write(REQUEST)
        await asyncio.sleep(10)
        assert [time - began for time, _ in program.received] == pytest.approx([1.5])
        transport.close()


@virtual_time
async def test_what_was_late_is_left_out_after_the_next_request() -> None:
    recording = recorded(
        (0.0, "client", REQUEST), (1.5, "controller", b"late"), (5.0, "client", REQUEST), (5.1, "controller", b"next")
    )
    assert await answers(Replay(recording), REQUEST, REQUEST, pause=1.2) == [b"", b"next"]


NEVER = recorded(
    (0.0, "client", REQUEST), (0.1, "controller", b"first"), (1e6, "controller", b"late"), (2e6, "client", REQUEST)
)
NEXT = Recording.of([*NEVER.records, Burst("controller", b"next", 2e6, 2e6)])


@virtual_time
async def test_requests_that_come_together_leave_out_what_was_late() -> None:
    assert await answers(Replay(NEXT), REQUEST + REQUEST) == [b"firstnext"]
    # The second one comes while the first one is answered.
    transport, program = await open_in_process(Program, Replay(NEXT))
    transport.write(REQUEST)
    transport.write(REQUEST)
    await asyncio.sleep(5)
    assert b"".join(data for _, data in program.received) == b"firstnext"
    transport.close()


async def test_a_server_leaves_out_what_was_late_after_the_next_request() -> None:
    async with serve_tcp(Replay(NEXT, speed=0)) as url:
        host, _, port = url.removeprefix("tcp://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        for expected in (b"first", b"next"):
            writer.write(REQUEST)
            assert await reader.readexactly(len(expected)) == expected
        writer.close()
        await writer.wait_closed()


@virtual_time
async def test_requests_are_equal_by_command_and_data() -> None:
    recording = recorded((0.0, "meter", Frame(1, 0xA0, b"\3").encode(start_up=False)), (0.1, "controller", reply(1)))
    for request in (REQUEST, Frame(0, 0xA0, b"\3").encode(start_up=False)):
        assert await answers(Replay(recording), request) == [reply(1)]
    assert await answers(Replay(recording), ON) == [b""]


@virtual_time
async def test_a_request_out_of_order_gets_the_next_equal_one() -> None:
    recording = recorded(
        (0.0, "client", REQUEST),
        (0.1, "controller", reply(1)),
        (5.0, "client", REQUEST),
        (5.1, "controller", reply(2)),
        (6.0, "client", ON),
        (6.1, "controller", ON),
        (10.0, "client", REQUEST),
        (10.1, "controller", reply(3)),
    )
    off = Frame(0x16, 0xAA, b"\0").encode()
    requests = (REQUEST, off, ON, ON, REQUEST, REQUEST)
    replay = Replay(recording)
    assert await answers(replay, *requests) == [reply(1), b"", ON, b"", reply(3), b""]
    assert (replay.unanswered, replay.remaining) == (3, 0)
    loop = Replay(recording, loop=True)
    assert await answers(loop, *requests) == [reply(1), b"", ON, ON, reply(3), reply(1)]


@virtual_time
async def test_clients_continue_at_the_same_place() -> None:
    recording = recorded(
        *((t, who, data) for t in range(3) for who, data in (("client", REQUEST), ("controller", reply(t))))
    )
    replay = Replay(recording)
    assert [await answers(replay, REQUEST) for _ in range(3)] == [[reply(0)], [reply(1)], [reply(2)]]


@virtual_time
async def test_a_capture_without_times_is_answered_at_once() -> None:
    records: list[Record] = [Burst("display", REQUEST), Burst("controller", reply(1))]
    assert await answers(Replay(Recording.of(records)), REQUEST, pause=0.001) == [reply(1)]


@virtual_time
async def test_a_sniffed_meter_and_controller_answer_as_they_did() -> None:
    path = Path(__file__).parents[3] / "shared" / "captures" / "display-session.jsonl"
    if not path.exists():
        pytest.skip("the captures are not here")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    replies = [bytes.fromhex(line["hex"]) for line in lines if line["from"] == "controller"]
    found = await answers(Replay(Recording.read(path)), *[REQUEST] * len(replies))
    assert len(replies) > 200
    assert found == replies


@virtual_time
async def test_the_beginning_and_the_end_of_a_connection_are_replayed() -> None:
    records: list[Record] = [
        LinkChange(up=True, t=1.0, time=1.0),
        Burst("controller", b"banner", 1.1, 1.1),
        Burst("client", REQUEST, 2.0, 2.0),
        Burst("controller", reply(1), 2.1, 2.1),
        LinkChange(up=False, t=2.2, time=2.2),
        LinkChange(up=True, t=3.0, time=3.0),
        LinkChange(up=False, t=3.5, time=3.5),
    ]
    replay = Replay(Recording.of(records))
    transport, program = await open_in_process(Program, replay)
    began = asyncio.get_running_loop().time()
    await asyncio.sleep(5)
    transport.write(REQUEST)
    await asyncio.sleep(5)
    assert [data for _, data in program.received] == [b"banner", reply(1)]
    assert [time - began for time, _ in program.received] == pytest.approx([0.1, 5.1])
    assert program.lost_at == pytest.approx(began + 5.2)
    _, program = await open_in_process(Program, replay)
    began = asyncio.get_running_loop().time()
    await asyncio.sleep(5)
    assert program.lost_at == pytest.approx(began + 0.5)


# On real lines


async def test_a_recording_is_served_on_tcp() -> None:
    async with serve_tcp(Replay(Recording.read(REPORT), speed=0)) as url, TracerClient(url) as tracer:
        assert [(await tracer.read_realtime()).battery_voltage for _ in range(3)] == [12.99, 12.96, 13.0]


async def test_a_pseudo_terminal_is_never_closed_by_the_recording() -> None:
    good = Frame(0, 0xA0, SimulatedTracer().realtime().to_bytes()).encode(start_up=False)
    records: list[Record] = [
        Burst("client", REQUEST, 0.0, 0.0),
        LinkChange(up=False, t=0.1, time=0.1),
        Burst("client", REQUEST, 1.0, 1.0),
        Burst("controller", good, 1.0, 1.0),
    ]
    async with serve_pty(Replay(Recording.of(records), speed=0)) as url, TracerClient(url, timeout=0.5) as tracer:
        assert (await tracer.read_realtime()).battery_voltage > 10


async def test_after_the_end_there_is_silence() -> None:
    async with TracerClient(f"sim:?replay={REPORT}&speed=0", timeout=0.1, retries=0, fence=0.0) as tracer:
        readings = [reading async for reading in aiter_of(tracer, 8)]
    assert not readings[-1].ok
    assert isinstance(readings[-1].error, ResponseTimeoutError)


async def aiter_of(tracer: TracerClient, count: int) -> AsyncIterator[Reading]:
    polled = tracer.poll(0.01)
    for _ in range(count):
        yield await anext(polled)
    await polled.aclose()


def test_a_recording_takes_no_other_faults() -> None:
    async def main() -> None:
        await open_in_process(Program, Replay(recorded()), faults=Faults("drop"))

    with pytest.raises(ValueError, match="faults cannot"):
        asyncio.run(main())
