"""Faults have the given effect and probability and are reproducible. A damaged frame never decodes as a good one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.recorder import Recorder, turn
from tests.simulator.wires import Terminal, close, connect, needs_posix
from tracer_async import Frame, FrameDecoder, LoadState, RealtimeData, TracerClient, TracerError
from tracer_async.simulator import (
    FAULT_KINDS,
    Fault,
    Faults,
    SimulatedTracer,
    _damage,
    open_in_process,
    serve_pty,
    serve_tcp,
    serve_unix,
)
from tracer_async.simulator._faulty_port import FaultyPort
from tracer_async.simulator._port import Discard, Ending, Step, Wait
from tracer_async.simulator.faults import parse_fault

pytestmark = needs_posix

READ = Frame(0x16, 0xA0, b"")
ON = Frame(0x16, 0xAA, b"\x01")
OFF = Frame(0x16, 0xAA, b"\x00")
WRITE = Frame(0x16, 0xAD, bytes((0, 0, 3, 1, 10, 17, 18)))
UNKNOWN = Frame(0x16, 0xA1, b"")

# Faults that change a reply and keep the connection open.
ON_REPLY = ("late=1s", "stall=2s", "double", "flip", "cut", "tear", "stray", "id", "foreign", "drip=5ms", "flood=1KiB")


def stopped_tracer() -> SimulatedTracer:
    return SimulatedTracer(clock=lambda: 0.0)


def always(*specs: str, seed: int = 0) -> Faults:
    return Faults(*(f"{spec}@100%" for spec in specs), seed=seed)


def steps(faults: Faults, *requests: Frame, tracer: SimulatedTracer | None = None) -> list[Step]:
    port = FaultyPort(tracer or stopped_tracer(), faults)
    return [*port.greet(), *port.feed(b"".join(request.encode() for request in requests))]


def sent(executed: Iterable[Step]) -> bytes:
    return b"".join(step for step in executed if isinstance(step, bytes))


def frames(raw: bytes) -> list[Frame]:
    decoder = FrameDecoder()
    return [event for event in decoder.feed(raw) + decoder.flush() if isinstance(event, Frame)]


# The text of a fault


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("drop", Fault("drop", 0.05)),
        ("drop@0.25", Fault("drop", 0.25)),
        ("drop@25%", Fault("drop", 0.25)),
        ("flip=1%", Fault("flip", 0.01)),
        ("flip=.5%", Fault("flip", 0.005)),
        ("late", Fault("late", 0.05, 2.5)),
        ("late=300ms", Fault("late", 0.05, 0.3)),
        ("late=1s@100%", Fault("late", 1.0, 1.0)),
        ("flood=2KiB@1", Fault("flood", 1.0, 2048.0)),
        ("flood=7B", Fault("flood", 0.01, 7.0)),
        ("flood=0.5MiB", Fault("flood", 0.01, 524288.0)),
        ("banner", Fault("banner", 1.0, text="ready")),
        ("banner=", Fault("banner", 1.0, text="")),
        ("banner=login: a=b", Fault("banner", 1.0, text="login: a=b")),
        ("banner=you@home", Fault("banner", 1.0, text="you@home")),
        ("banner=you@150%", Fault("banner", 1.0, text="you@150%")),
        ("banner=you@home@50%", Fault("banner", 0.5, text="you@home")),
        ("half-open@0%", Fault("half-open", 0.0)),
    ],
)
def test_parse_fault_returns_kind_probability_and_value(spec: str, fault: Fault) -> None:
    assert parse_fault(spec) == fault


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("", "is not a valid fault, such as late=2.5s@5%; the kinds are drop, late, "),
        ("lat=1s", "'lat=1s' is not a valid fault, such as late=2.5s@5%; the kinds are drop, late, "),
        ("a@b@c", "the kinds are drop, late, "),
        ("late=2.5", "late takes a time in ms or s, up to an hour; write late=2.5s or late=2.5s@5%"),
        ("late=5%", "late takes a time"),
        ("late=", "late takes a time"),
        ("late=-1s", "late takes a time"),
        ("late=3601s", "up to an hour"),
        ("late=1e1s", "late takes a time"),
        ("late=1s@5%@6%", "late takes a time"),
        ("flood=65MiB", "flood takes a size in B, KiB or MiB, up to 64MiB; write flood=64KiB or flood=64KiB@1%"),
        ("flood=1s", "flood takes a size"),
        ("drop=yes", "drop takes no value; write drop or drop@5%"),
        ("drop=1", "drop takes no value"),
        ("drop=1%@2%", "drop takes no value"),
        ("drop=101%", "a probability is 0% to 100%, or 0 to 1; write drop@5%"),
        ("drop@1.1", "a probability is"),
        ("drop@", "a probability is"),
        ("drop@nan", "a probability is"),
        ("late@x", "a probability is 0% to 100%, or 0 to 1; write late=2.5s@5%"),
        ("banner@x", "a probability is"),
    ],
)
def test_an_invalid_fault_is_refused_with_a_valid_example(spec: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=" is not a valid fault") as refused:
        Faults("drop", spec)
    assert sentence in str(refused.value)


@given(st.text(alphabet="drop=late@banner5%. ms\n") | st.text())
def test_any_text_gives_a_fault_or_value_error(spec: str) -> None:
    with suppress(ValueError):
        assert 0.0 <= parse_fault(spec).probability <= 1.0


@pytest.mark.parametrize("kind", FAULT_KINDS.values(), ids=list(FAULT_KINDS))
def test_every_kind_has_a_summary_and_an_example_with_its_defaults(kind: Any) -> None:
    assert kind.summary
    assert "\n" not in kind.summary
    assert parse_fault(kind.example) == parse_fault(kind.name)


# The effect on requests and replies


@settings(deadline=None)
@given(
    kinds=st.sets(st.sampled_from(ON_REPLY)),
    requests=st.lists(st.sampled_from([READ, ON, OFF, WRITE, UNKNOWN]), max_size=6),
    seed=st.integers(0, 1 << 32),
)
def test_undamaged_replies_arrive_and_damaged_ones_never_decode(
    kinds: set[str], requests: list[Frame], seed: int
) -> None:
    names = {kind.partition("=")[0] for kind in kinds}
    faults, tracer, twin = always(*kinds, seed=seed), stopped_tracer(), stopped_tracer()
    port = FaultyPort(tracer, faults)
    stream, found = b"", []
    for request in requests:
        raw = sent(port.feed(request.encode()))
        reply = twin.answer(request)
        good = frames(raw)
        if reply is None:
            assert raw == b""
            continue
        sound = 1 + ("double" in names) - bool({"flip", "cut"} & names)
        assert len(good) == sound + ("foreign" in names)
        possible = {(frame.command, frame.data) for frame in frames(reply)}
        assert [(frame.command, frame.data) in possible for frame in good].count(True) >= sound
        possible |= {(0xA0, twin.realtime().to_bytes()), (0xAA, LoadState(twin.load_on).to_bytes())}
        assert {(frame.command, frame.data) for frame in good} <= possible
        stream += raw
        found += good
    assert frames(stream) == found  # damage to one reply does not affect the next one
    assert list(tracer.requests) == requests  # the controller executes each request once
    answered = len(requests) - requests.count(UNKNOWN)
    torn = answered - requests.count(WRITE)  # the reply to AD has no data that could be torn
    expected = {name: torn if name == "tear" else answered for name in names - {"stall"}}
    expected |= {"stall": len(requests)} if "stall" in names else {}
    assert faults.injected == Counter(expected)


@given(st.sets(st.sampled_from(ON_REPLY)), st.integers(0, 1 << 32))
def test_a_reply_that_is_not_one_frame_is_sent_unchanged(kinds: set[str], seed: int) -> None:
    class Odd(SimulatedTracer):
        def answer(self, frame: Frame) -> bytes:
            return b"anything"

    assert sent(steps(always(*kinds, seed=seed), READ, tracer=Odd())) == b"anything"


def test_the_same_seed_gives_the_same_faults_for_any_interleaving_of_connections() -> None:
    specs = [f"{kind}@30%" for kind in ON_REPLY]
    requests = [READ, OFF, READ, ON] * 10
    first = Faults(*specs, seed=7)
    one, two = (FaultyPort(stopped_tracer(), first) for _ in range(2))
    interleaved: tuple[list[Step], list[Step]] = ([], [])
    for request in requests:
        interleaved[0].extend(one.feed(request.encode()))
        interleaved[1].extend(two.feed(request.encode()))
    again = Faults(*specs, seed=7)
    assert steps(again, *requests) == interleaved[0]
    assert steps(again, *requests) == interleaved[1] != interleaved[0]
    assert again.injected == first.injected
    assert steps(Faults(*specs, seed=8), *requests) != interleaved[0]


def test_faults_occur_with_the_given_probability() -> None:
    faults = Faults("drop@20%", "double@50%", "flip=2%", "cut@0%", seed=1)
    port = FaultyPort(stopped_tracer(), faults)
    for _ in range(4000):
        list(port.feed(READ.encode()))
    assert 650 < faults.injected["drop"] < 950
    assert 1400 < faults.injected["double"] < 1800  # half of the requests that were not dropped
    assert 30 < faults.injected["flip"] < 100
    assert faults.injected["cut"] == 0


def test_without_faults_the_reply_of_the_controller_is_sent() -> None:
    assert steps(Faults(), READ) == steps(Faults("flip@0%"), READ) == [stopped_tracer().answer(READ)]


@pytest.mark.parametrize("kind", ["drop", "silence=1s", "half-open"])
def test_the_controller_does_not_execute_a_lost_request(kind: str) -> None:
    tracer = stopped_tracer()
    assert sent(steps(always(kind), OFF, READ, tracer=tracer)) == b""
    assert tracer.load_on
    assert not tracer.requests


@pytest.mark.parametrize("kind", ["late=1s", "flip", "cut", "hangup"])
def test_the_controller_executes_a_request_whose_reply_is_damaged(kind: str) -> None:
    tracer = stopped_tracer()
    steps(always(kind), OFF, tracer=tracer)
    assert not tracer.load_on


def test_silence_half_open_and_hangup_discard_requests_received_together() -> None:
    assert steps(always("silence=3s"), READ, READ) == [Discard(3.0)]
    assert steps(always("half-open"), READ, READ) == [Ending.HALF_OPEN]
    assert steps(always("hangup"), READ, READ)[-1] is Ending.HANG_UP
    port = FaultyPort(stopped_tracer(), always("silence=3s"))
    half = READ.encode()[:-4]
    assert list(port.feed(READ.encode() + half)) == [Discard(3.0)]
    assert port.pending == 0


def test_a_late_reply_delays_the_next_request_which_gets_fresh_data() -> None:
    tracer = stopped_tracer()
    port = FaultyPort(tracer, always("late=2.5s", "drip=5ms"))
    remaining = iter(port.feed(READ.encode() * 2))
    assert next(remaining) == Wait(2.5)
    assert len(tracer.requests) == 1
    for _ in range(36 + 35):
        assert next(remaining)
    assert len(tracer.requests) == 1
    assert next(remaining) == Wait(2.5)
    assert len(tracer.requests) == 2


def test_a_stalled_controller_executes_the_request_after_the_delay() -> None:
    tracer = stopped_tracer()
    remaining = iter(FaultyPort(tracer, always("stall=1s")).feed(READ.encode()))
    assert next(remaining) == Wait(1.0)
    assert not tracer.requests
    assert frames(sent(remaining))


def test_a_torn_frame_has_the_data_of_the_previous_reply() -> None:
    tracer = stopped_tracer()
    port = FaultyPort(tracer, always("tear"))
    before = tracer.realtime().to_bytes()
    list(port.feed(READ.encode()))
    tracer.load_watts = 7.0
    torn, good = port.feed(READ.encode())
    assert isinstance(torn, bytes)
    assert isinstance(good, bytes)
    assert (torn[9:-3], torn[:9], torn[-3:]) == (before, good[:9], good[-3:])
    assert [frame.data for frame in frames(torn + good)] == [tracer.realtime().to_bytes()]


def test_a_torn_first_frame_has_changed_data() -> None:
    for request in (READ, ON):
        for seed in range(100):
            torn, good = steps(always("tear", seed=seed), request)
            assert isinstance(torn, bytes)
            assert isinstance(good, bytes)
            assert torn[-3:] == good[-3:]
            assert torn != good
            assert frames(torn) == []
            # Only the first two data bytes differ.
            assert torn[11:] == good[11:]
    with pytest.raises(ValueError, match="without data cannot be torn"):
        _damage.tear(Frame(0, 0xAD, b""), None, Random(0))


@given(st.integers(0, 40), st.integers(0, 1 << 32))
def test_garbage_never_completes_a_cut_frame(size: int, seed: int) -> None:
    random = Random(seed)
    for junk in (_damage.garbage(size * 40, random), _damage.stray(random)):
        reply = stopped_tracer().answer(READ)
        assert reply is not None
        for keep in range(1, len(reply)):
            assert frames(reply[:keep] + junk) == []


def test_a_request_after_an_incomplete_one_is_answered_after_a_pause() -> None:
    port = FaultyPort(stopped_tracer(), always("double"))
    assert list(port.feed(b"\xeb\x90\xeb\x90\xeb\x90\x16\xa0\xc8" + READ.encode())) == []
    assert port.pending
    assert len(frames(sent(port.flush()))) == 2


def test_changed_controller_ids_are_never_00() -> None:
    port = FaultyPort(stopped_tracer(), always("id"))
    ids = {frame.controller_id for frame in frames(sent(port.feed(READ.encode() * 500)))}
    assert 0 not in ids
    assert len(ids) > 200


def test_drip_waits_between_single_bytes() -> None:
    executed = steps(always("drip=5ms"), READ)
    assert executed[1::2] == [Wait(0.005)] * 35
    assert {len(step) for step in executed[::2] if isinstance(step, bytes)} == {1}


def test_a_flood_has_the_given_size_in_chunks_of_4_kib() -> None:
    executed = steps(always("flood=9000B"), READ)
    assert [len(step) for step in executed if isinstance(step, bytes)] == [4096, 4096, 808, 36]
    assert b"\x7f" not in sent(executed[:3])


def test_if_two_faults_of_one_kind_are_drawn_the_first_one_happens() -> None:
    faults = Faults("late=1s@100%", "late=2s@100%")
    assert steps(faults, READ)[0] == Wait(1.0)
    assert faults.injected == {"late": 1}


def test_banner_and_refuse_apply_to_a_new_connection() -> None:
    assert steps(always("banner=hello", "refuse")) == [b"hello\r\n", Ending.HANG_UP]
    assert steps(Faults("banner")) == [b"ready\r\n"]


# Over TCP, Unix socket and pseudo-terminal: the received bytes equal those of a second port with the same seed


def serve(wire: str, tmp_path: Path, faults: Faults) -> AbstractAsyncContextManager[str]:
    if wire == "tcp":
        return serve_tcp(stopped_tracer(), faults=faults)
    if wire == "unix":
        return serve_unix(stopped_tracer(), path=tmp_path / "tracer", faults=faults)
    return serve_pty(stopped_tracer(), faults=faults)


SHORT = ("late=1ms", "stall=1ms", "double", "flip", "cut", "tear", "stray", "id", "foreign", "drip=0ms", "flood=64KiB")


@pytest.mark.parametrize("wire", ["tcp", "unix", "pty", "in-process"])
@pytest.mark.parametrize("specs", [*((kind,) for kind in SHORT), SHORT], ids=[*SHORT, "all"])
async def test_every_server_sends_the_faults_of_the_port(wire: str, specs: tuple[str, ...], tmp_path: Path) -> None:
    faults, twin = always(*specs), always(*specs)
    requests = [READ, OFF, READ]
    expected = sent(steps(twin, *requests))
    stream = b"".join(request.encode() for request in requests)
    if wire == "in-process":
        transport, recorder = await open_in_process(Recorder, stopped_tracer(), faults=faults)
        for request in requests:
            transport.write(request.encode())
        while (received := b"".join(recorder.calls[1:])) != expected:
            assert expected.startswith(received)
            recorder.called.clear()
            await recorder.called.wait()
        transport.close()
        await turn()
    elif wire == "pty":
        async with serve(wire, tmp_path, faults) as url:
            client = Terminal(url)
            client.write(stream)
            assert await client.read(len(expected)) == expected
            client.close()
    else:
        async with serve(wire, tmp_path, faults) as url:
            reader, writer = await connect(url)
            writer.write(stream)
            writer.write_eof()
            assert await reader.read() == expected
            await close(writer)
    assert faults.injected == twin.injected
    assert set(faults.injected) == {spec.partition("=")[0] for spec in specs}


@pytest.mark.parametrize("wire", ["tcp", "unix", "pty"])
@pytest.mark.parametrize("kind", ["drop", "silence=1ms"])
async def test_a_lost_request_is_answered_when_it_is_repeated(wire: str, kind: str, tmp_path: Path) -> None:
    seed = next(
        seed
        for seed in range(100)
        if [len(sent(one)) for one in feed_singly(Faults(f"{kind}@50%", seed=seed), 3)] == [0, 0, 36]
    )
    faults = Faults(f"{kind}@50%", seed=seed)
    name = kind.partition("=")[0]
    async with serve(wire, tmp_path, faults) as url:
        if wire == "pty":
            client = Terminal(url)
            reply = await repeat_until_answered(lambda: client.write(READ.encode()), client.read(36))
            client.close()
        else:
            reader, writer = await connect(url)
            reply = await repeat_until_answered(lambda: writer.write(READ.encode()), reader.readexactly(36))
            await close(writer)
    assert reply == stopped_tracer().answer(READ)
    assert faults.injected[name] >= 2


def feed_singly(faults: Faults, count: int) -> list[list[Step]]:
    port = FaultyPort(stopped_tracer(), faults)
    return [list(port.feed(READ.encode())) for _ in range(count)]


async def repeat_until_answered(write: Callable[[], object], answer: Coroutine[Any, Any, bytes]) -> bytes:
    """Repeat the request every 2 ms. A single repetition could still be within the silence before it, and be lost."""
    waiting = asyncio.create_task(answer)
    while not waiting.done():
        write()
        await asyncio.wait([waiting], timeout=0.002)
    return await waiting


@pytest.mark.parametrize("kind", ["drop", "silence=3600s", "half-open"])
async def test_an_unanswered_client_can_disconnect(kind: str) -> None:
    faults = always(kind)
    async with serve_tcp(stopped_tracer(), faults=faults) as url:
        reader, writer = await connect(url)
        writer.write(READ.encode() * 3)
        writer.write_eof()
        assert await reader.read() == b""
        await close(writer)
    assert set(faults.injected) == {kind.partition("=")[0]}


async def test_a_half_open_connection_keeps_reading_and_discarding() -> None:
    faults = always("half-open")
    async with serve_tcp(stopped_tracer(), faults=faults) as url:
        reader, writer = await connect(url)
        for _ in range(100):
            writer.write(READ.encode() * 5000)
            await writer.drain()
        writer.write_eof()
        assert await reader.read() == b""
        await close(writer)
    assert faults.injected == {"half-open": 1}


async def test_banner_refuse_and_hangup_over_tcp() -> None:
    async with serve_tcp(stopped_tracer(), faults=always("banner=hello")) as url:
        reader, writer = await connect(url)
        writer.write(READ.encode())
        assert await reader.readline() == b"hello\r\n"
        assert await reader.readexactly(36) == stopped_tracer().answer(READ)
        await close(writer)
    async with serve_tcp(stopped_tracer(), faults=always("banner", "refuse")) as url:
        reader, writer = await connect(url)
        assert await reader.read() == b"ready\r\n"
        await close(writer)
    faults, twin = always("hangup"), always("hangup")
    async with serve_tcp(stopped_tracer(), faults=faults) as url:
        for _ in range(3):
            reader, writer = await connect(url)
            writer.write(READ.encode())
            part = await reader.read()
            assert 0 < len(part) < 36
            assert part == sent(steps(twin, READ))
            await close(writer)
    assert faults.injected == {"hangup": 3}


@pytest.mark.parametrize("kind", ["banner", "refuse", "hangup", "half-open"])
async def test_serve_pty_refuses_connection_faults(kind: str) -> None:
    with pytest.raises(ValueError, match=f"no {kind}: serve TCP"):
        async with serve_pty(faults=Faults("drop", kind)):
            pass


async def test_faults_apply_with_baud_pacing() -> None:
    faults = always("stray", "double")
    async with serve_tcp(stopped_tracer(), baud_pacing=True, faults=faults) as url:
        reader, writer = await connect(url)
        writer.write(READ.encode())
        writer.write_eof()
        assert len(frames(await reader.read())) == 2
        await close(writer)


# In the same process


async def test_in_process_banner_refuse_and_hangup() -> None:
    _, recorder = await open_in_process(Recorder, stopped_tracer(), faults=always("banner=hello", "refuse"))
    await turn()
    assert recorder.calls == ["made", b"hello\r\n", ("lost", None)]
    transport, recorder = await open_in_process(Recorder, stopped_tracer(), faults=always("hangup"))
    transport.write(READ.encode() * 2)
    transport.write(READ.encode())
    await turn()
    assert recorder.calls == ["made", sent(steps(always("hangup"), READ)), ("lost", None)]


async def test_in_process_a_half_open_connection_stays_open_until_the_client_closes_it() -> None:
    tracer = stopped_tracer()
    transport, recorder = await open_in_process(Recorder, tracer, faults=always("half-open"))
    transport.write(READ.encode() + READ.encode()[:9])
    transport.write(READ.encode())
    await turn()
    assert recorder.calls == ["made"]
    assert not tracer.requests
    transport.close()
    await turn()
    assert recorder.calls == ["made", ("lost", None)]


async def test_in_process_bytes_written_during_a_delay_are_answered_afterwards() -> None:
    tracer = stopped_tracer()
    transport, recorder = await open_in_process(Recorder, tracer, faults=always("late=1ms"))
    for chunk in (READ.encode(), READ.encode()[:9], READ.encode()[9:]):
        transport.write(chunk)
    assert len(tracer.requests) == 1
    while len(recorder.calls) < 3:
        recorder.called.clear()
        await recorder.called.wait()
    assert len(tracer.requests) == 2
    transport.write(READ.encode())
    transport.close()
    await turn()
    assert recorder.calls[-1] == ("lost", None)


async def test_in_process_bytes_written_during_a_silence_are_lost() -> None:
    tracer, faults = stopped_tracer(), always("silence=1ms")
    transport, recorder = await open_in_process(Recorder, tracer, faults=faults)
    transport.write(READ.encode())
    transport.write(READ.encode())
    assert faults.injected == {"silence": 1}
    while faults.injected["silence"] < 2:
        await asyncio.sleep(0)
        transport.write(READ.encode())
    assert not tracer.requests
    assert recorder.calls == ["made"]
    transport.close()
    await turn()


# The client


class Stamping(SimulatedTracer):
    """A controller that numbers its readings, and records the wall-clock time of each."""

    def __init__(self) -> None:
        super().__init__(time_scale=0.0)
        self.given: list[float] = []

    def realtime(self) -> RealtimeData:
        self.given.append(time.time())
        high, low = divmod(len(self.given) - 1, 1000)
        return super().realtime()._replace(battery_voltage=high / 100, pv_voltage=low / 100)

    def given_at(self, reading: RealtimeData) -> float:
        return self.given[round(reading.battery_voltage * 100) * 1000 + round(reading.pv_voltage * 100)]


SHORTER = {
    "late": "late=120ms",
    "drip": "drip=1ms",
    "flood": "flood=2KiB",
    "stall": "stall=80ms",
    "silence": "silence=200ms",
}
EVERYTHING = [SHORTER.get(kind, kind) for kind in FAULT_KINDS]


async def test_no_reading_is_damaged_or_older_than_its_age_under_all_faults(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "tracer_async")
    tracer, faults = Stamping(), Faults(*(f"{spec}@5%" for spec in EVERYTHING), seed=13)
    good = failed = 0

    async def read_on(client: TracerClient) -> None:
        nonlocal good, failed
        for _ in range(8):
            try:
                reading = await client.read()
            except TracerError:
                failed += 1
                continue
            assert reading.data is not None
            given = tracer.given_at(reading.data)
            # 1 ms of tolerance: wall-clock times are rounded, and the clock may be adjusted during the test.
            assert reading.time - reading.age - 0.001 <= given <= reading.time + 0.001
            good += 1

    async with serve_tcp(tracer, faults=faults) as url, asyncio.TaskGroup() as clients:
        for _ in range(40):
            clients.create_task(read_with(url, read_on))
    assert good + failed == 40 * 8
    assert good > 200
    assert set(faults.injected) == {spec.partition("=")[0] for spec in EVERYTHING}


async def read_with(url: str, read_on: Any) -> None:
    options: dict[str, Any] = {"timeout": 0.05, "fence": 0.05, "retries": 2, "backoff": (0.005, 0.02)}
    async with TracerClient(url, start_offline=True, **options) as client:
        await read_on(client)
