"""What holds when the controller is slow, silent, wrong or gone: the test plays the controller."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import tracemalloc
from typing import Any

import pytest

from tests.client.test_client import SETTINGS
from tests.peer import READING, Peer, load, realtime
from tracer_async import (
    ConnectionState,
    LinkClosedError,
    LinkLostError,
    LinkRefusedError,
    LinkTimeoutError,
    LoadRefusedError,
    LoadState,
    LoadUnknownError,
    MalformedReplyError,
    ReadRealtime,
    ResponseTimeoutError,
    TracerClient,
)
from tracer_async.protocol import SYNC, Frame
from tracer_async.simulator import serve_tcp

OTHER = READING._replace(battery_voltage=13.0)
ON, OFF = READING._replace(load_on=True), READING._replace(load_on=False)


def client(peer: Peer, **options: object) -> TracerClient:
    """A client that loses its patience quickly, and does not retry."""
    defaults = {"timeout": 0.1, "retries": 0, "fence": 0.1, "backoff": (0.001, 0.01), "dead_after": 1000}
    return TracerClient(peer.url, **defaults | options)  # type: ignore[arg-type]


ARGUMENTS: dict[str, list[Any]] = {"set_load": [True], "write_settings": [SETTINGS]}
PATIENT: dict[str, Any] = {"timeout": 30.0, "fence": 30.0}


class NoRetry(ReadRealtime):
    """A reading that joins no other request and is sent once."""

    repeatable = False


async def begin(peer: Peer, tracer: TracerClient) -> None:
    """Take the reading that precedes the first command on a connection."""
    reading = asyncio.create_task(tracer.read_realtime())
    await peer.request(0xA0)
    peer.send(realtime())
    await reading


# No answer


async def test_no_answer_is_an_error_that_names_what_was_asked(peer: Peer) -> None:
    async with client(peer, retries=2, fence=0.0) as tracer:
        with pytest.raises(ResponseTimeoutError) as caught:
            await tracer.read_realtime()
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.command == 0xA0
        assert caught.value.attempts == 3
        assert caught.value.waited >= 0.3
        assert peer.url in str(caught.value)
        assert tracer.stats.requests == tracer.stats.timeouts == 3


async def test_a_request_without_answer_is_sent_again(peer: Peer) -> None:
    async with client(peer, retries=1) as tracer:
        reading = asyncio.create_task(tracer.read_realtime())
        await peer.request(0xA0)
        await peer.request(0xA0)
        peer.send(realtime())
        assert await reading == READING


async def test_settings_are_never_sent_twice(peer: Peer) -> None:
    async with client(peer, retries=5) as tracer:
        await begin(peer, tracer)
        with pytest.raises(ResponseTimeoutError):
            await tracer.write_settings(SETTINGS)
        reading = asyncio.create_task(tracer.read_realtime())
        assert (await peer.request()).command == 0xAD
        assert (await peer.request()).command == 0xA0
        peer.send(realtime())
        await reading


# The fence


async def test_a_late_reply_is_thrown_away_and_lets_the_next_request_go(peer: Peer) -> None:
    async with client(peer, fence=30.0) as tracer:
        with pytest.raises(ResponseTimeoutError):
            await tracer.read_realtime()
        await peer.request()
        reading = asyncio.create_task(tracer.read_realtime())
        await asyncio.sleep(0)
        assert peer.idle
        peer.send(realtime(OTHER))
        await peer.request()
        peer.send(realtime())
        assert await reading == READING
        assert tracer.stats.late == 1


async def test_each_answer_is_its_own_requests_when_all_come_late(peer: Peer) -> None:
    """The fault that other libraries never recover from: one late reply, and each caller gets the answer before his."""
    async with client(peer, timeout=0.3, fence=30.0) as tracer:
        frames = tracer.frames()
        for number in range(5):
            with pytest.raises(ResponseTimeoutError):
                await tracer.read_realtime()
            await peer.request()
            peer.send(realtime(READING._replace(battery_temperature=number)))
            await anext(frames)
        reading = asyncio.create_task(tracer.read_realtime())
        await peer.request()
        peer.send(realtime(READING._replace(battery_temperature=99)))
        assert (await reading).battery_temperature == 99
        assert tracer.stats.late == 5


async def test_a_reading_that_may_be_an_older_requests_says_how_old_it_may_be(peer: Peer) -> None:
    async with client(peer, fence=0.0) as tracer:
        with pytest.raises(ResponseTimeoutError):
            await tracer.read_realtime()
        await peer.request()
        reading = asyncio.create_task(tracer.read())
        await peer.request()
        peer.send(realtime())
        assert (await reading).age >= 0.1
        # Its own reply settles it: the next one cannot be from before that.
        asked = asyncio.get_running_loop().time()
        frames = tracer.frames()
        peer.send(realtime())
        await anext(frames)
        reading = asyncio.create_task(tracer.read())
        await peer.request()
        peer.send(realtime())
        assert (await reading).age <= asyncio.get_running_loop().time() - asked + 0.1


async def test_a_reply_to_another_command_is_no_answer(peer: Peer) -> None:
    async with client(peer, **PATIENT) as tracer:
        reading = asyncio.create_task(tracer.read_realtime())
        await peer.request()
        peer.send(load(1) + realtime())
        assert await reading == READING
        assert tracer.stats.unsolicited == 1


async def test_settings_are_not_taken_for_written_by_an_older_writes_reply(peer: Peer) -> None:
    """A write without an answer is followed by a reading, whose answer settles it, before the next write."""
    async with client(peer) as tracer:
        await begin(peer, tracer)
        with pytest.raises(ResponseTimeoutError):
            await tracer.write_settings(SETTINGS)
        await peer.request(0xAD)
        writing = asyncio.create_task(tracer.write_settings(SETTINGS))
        await peer.request(0xA0)
        peer.send(realtime())
        await peer.request(0xAD)
        peer.send(Frame(0, 0xAD, b"").encode(start_up=False))
        await writing


async def test_nothing_is_sent_while_a_reply_too_many_is_coming_in(peer: Peer) -> None:
    """The second of a doubled reply, of which the first part came together with the first."""
    async with client(peer, **PATIENT) as tracer:
        reading = asyncio.create_task(tracer.read_realtime())
        await peer.request()
        peer.send(realtime() + realtime()[:10])
        await reading
        reading = asyncio.create_task(tracer.read_realtime())
        await asyncio.sleep(0)
        assert peer.idle
        peer.send(realtime()[10:])
        await peer.request()
        peer.send(realtime(OTHER))
        assert await reading == OTHER
        assert tracer.stats.unsolicited == 1


# Damage


@pytest.mark.parametrize(
    "before",
    [
        b"\x00\xff",
        b"\xeb\x90",
        realtime()[:20],
        SYNC + b"\x00\xa0\xc8",  # promises 200 bytes and swallows the reply
        realtime()[:-1] + b"\x00",
        b"Port already in use\r\n",
    ],
)
async def test_a_good_reply_is_found_behind_damage(peer: Peer, before: bytes) -> None:
    async with client(peer) as tracer:
        reading = asyncio.create_task(tracer.read_realtime())
        await peer.request()
        peer.send(before + realtime())
        assert await reading == READING


@pytest.mark.parametrize("data", [b"", bytes(23), bytes(25), b"\xff" * 24])
async def test_a_malformed_reply_is_an_error_with_its_bytes_and_the_link_stays(peer: Peer, data: bytes) -> None:
    async with client(peer, **PATIENT) as tracer:
        reading = asyncio.create_task(tracer.read_realtime())
        await peer.request()
        peer.send(Frame(0, 0xA0, data).encode(start_up=False))
        with pytest.raises(MalformedReplyError) as caught:
            await reading
        assert caught.value.raw == data
        reading = asyncio.create_task(tracer.read_realtime())
        await peer.request()
        peer.send(realtime())
        assert await reading == READING
        assert peer.connections == 1


# The load


async def test_an_unanswered_switch_is_read_back(peer: Peer) -> None:
    async with client(peer) as tracer:
        await begin(peer, tracer)
        switching = asyncio.create_task(tracer.set_load(True))
        assert (await peer.request(0xAA)).data == b"\x01"
        await peer.request(0xA0)
        peer.send(realtime(ON))
        assert await switching is LoadState.ON


async def test_a_switch_that_was_missed_is_sent_again(peer: Peer) -> None:
    async with client(peer, retries=1) as tracer:
        await begin(peer, tracer)
        switching = asyncio.create_task(tracer.set_load(True))
        await peer.request(0xAA)
        await peer.request(0xA0)
        peer.send(realtime(OFF))
        await peer.request(0xAA)
        peer.send(load(1))
        assert await switching is LoadState.ON


async def test_a_switch_that_nothing_is_known_of_says_so(peer: Peer) -> None:
    async with client(peer, fence=0.0) as tracer:
        with pytest.raises(LoadUnknownError) as caught:
            await tracer.set_load(True)
        assert isinstance(caught.value.__cause__, ResponseTimeoutError)


async def test_a_switch_that_is_not_followed_is_a_refusal(peer: Peer) -> None:
    async with client(peer, retries=3, **PATIENT) as tracer:
        await begin(peer, tracer)
        switching = asyncio.create_task(tracer.set_load(True))
        await peer.request(0xAA)
        peer.send(load(0))
        await peer.request(0xA0)
        peer.send(realtime(OFF._replace(over_discharge=True)))
        with pytest.raises(LoadRefusedError, match="over-discharged"):
            await switching
        assert peer.idle


async def test_a_late_reply_to_an_older_switch_is_no_success(peer: Peer) -> None:
    """On, off and on again, each reply later than its fence: an ambiguous answer is read back."""
    async with client(peer, fence=0.0) as tracer:
        await begin(peer, tracer)
        for on in (True, False, True):
            switching = asyncio.create_task(tracer.set_load(on))
            await peer.request(0xAA)
            await peer.request(0xA0)
            # Only now the reply to the switch, and then the reading: the load was not switched, and no answer in time
            # says whether the controller refuses.
            peer.send(load(on) + realtime(OFF if on else ON))
            with pytest.raises(LoadUnknownError) as caught:
                await switching
            assert caught.value.reading is not None
            assert caught.value.reading.load_on is not on


async def test_reading_back_does_not_trust_a_reading_from_before_the_switch(peer: Peer) -> None:
    async with client(peer, fence=0.0, retries=1) as tracer:
        await begin(peer, tracer)
        reading = asyncio.create_task(tracer.execute(NoRetry()))
        await peer.request(0xA0)
        with pytest.raises(ResponseTimeoutError):
            await reading
        switching = asyncio.create_task(tracer.set_load(True))
        await peer.request(0xAA)
        await peer.request(0xA0)
        peer.send(realtime(OFF))  # the reply to the first reading, from before the switch
        await peer.request(0xA0)
        peer.send(realtime(ON))
        assert await switching is LoadState.ON


# Order and sharing


async def test_callers_at_the_same_time_share_one_exchange(peer: Peer) -> None:
    async with client(peer, **PATIENT) as tracer:
        readings = [asyncio.create_task(tracer.read_realtime()) for _ in range(10)]
        await peer.request()
        readings += [asyncio.create_task(tracer.read_realtime()) for _ in range(10)]
        await asyncio.sleep(0)
        readings[0].cancel()
        peer.send(realtime())
        assert await asyncio.gather(*readings[1:]) == [READING] * 19
        assert tracer.stats.requests == 1
        assert peer.idle


async def test_a_write_goes_before_queued_reads(peer: Peer) -> None:
    async with client(peer, **PATIENT) as tracer:
        await begin(peer, tracer)
        first = asyncio.create_task(tracer.read_realtime())
        await peer.request(0xA0)
        queued = asyncio.create_task(tracer.execute(NoRetry()))
        await asyncio.sleep(0)
        switching = asyncio.create_task(tracer.set_load(True))
        await asyncio.sleep(0)
        peer.send(realtime())
        await peer.request(0xAA)
        peer.send(load(1))
        await peer.request(0xA0)
        peer.send(realtime())
        await asyncio.gather(first, queued, switching)


async def test_max_age_returns_the_last_reading_again_while_it_is_young_enough(peer: Peer) -> None:
    async with client(peer, **PATIENT) as tracer:
        reading = asyncio.create_task(tracer.read_realtime(max_age=60.0))
        await peer.request()
        peer.send(realtime())
        assert await reading == READING
        assert await tracer.read_realtime(max_age=60.0) == READING
        assert tracer.stats.requests == 1
        reading = asyncio.create_task(tracer.read_realtime(max_age=1e-9))
        await peer.request()
        peer.send(realtime(OTHER))
        assert await reading == OTHER
        # A switched load makes the last reading worthless.
        switching = asyncio.create_task(tracer.set_load(True))
        await peer.request(0xAA)
        peer.send(load(1))
        await switching
        reading = asyncio.create_task(tracer.read_realtime(max_age=60.0))
        await peer.request(0xA0)
        peer.send(realtime(ON))
        assert await reading == ON


# Cancellation


@pytest.mark.parametrize("call", ["read_realtime", "set_load", "write_settings"])
async def test_a_cancelled_request_leaves_the_line_fit_for_the_next(peer: Peer, call: str) -> None:
    arguments = ARGUMENTS.get(call, [])
    async with client(peer, **PATIENT) as tracer:
        if arguments:
            await begin(peer, tracer)
        asked = asyncio.create_task(getattr(tracer, call)(*arguments))
        request = await peer.request()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        reading = asyncio.create_task(tracer.read_realtime())
        await asyncio.sleep(0)
        assert peer.idle  # fenced
        peer.send(Frame(0, request.command, OTHER.to_bytes() if request.command == 0xA0 else b"\x00").encode())
        await peer.request(0xA0)
        peer.send(realtime())
        assert await reading == READING


async def test_a_request_cancelled_before_its_turn_is_never_sent(peer: Peer) -> None:
    async with client(peer, **PATIENT) as tracer:
        reading = asyncio.create_task(tracer.read_realtime())
        await peer.request(0xA0)
        switching = asyncio.create_task(tracer.set_load(True))
        await asyncio.sleep(0)
        peer.send(realtime())
        switching.cancel()
        await reading
        with pytest.raises(asyncio.CancelledError):
            await switching
        reading = asyncio.create_task(tracer.read_realtime())
        await peer.request(0xA0)
        peer.send(realtime())
        await reading
        assert tracer.stats.requests == 2


async def test_cancelling_at_the_moment_of_the_answer_hurts_nobody(peer: Peer) -> None:
    async with client(peer, **PATIENT) as tracer:
        frames = tracer.frames()
        reading = asyncio.create_task(tracer.read_realtime())
        await peer.request()
        peer.send(realtime())
        await anext(frames)
        reading.cancel()
        await asyncio.wait([reading])
        reading = asyncio.create_task(tracer.read_realtime())
        await peer.request()
        peer.send(realtime(OTHER))
        assert await reading == OTHER


# The link


async def test_a_lost_link_is_opened_again_and_the_reading_goes_on(
    peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tracer_async")
    async with client(peer, **PATIENT | {"fence": 0.0}, retries=1) as tracer:
        states = tracer.state_changes()
        await peer.connection()
        reading = asyncio.create_task(tracer.read_realtime())
        await peer.request()
        peer.hang_up()
        await peer.connection()
        await peer.request()
        peer.send(realtime())
        assert await reading == READING
        assert tracer.state is ConnectionState.UP
    assert [state async for state in states] == [ConnectionState.DOWN, ConnectionState.UP, ConnectionState.CLOSED]
    assert ["lost" in record.message for record in caplog.records] == [True, False]


async def test_what_may_not_be_sent_twice_fails_with_the_link(peer: Peer) -> None:
    async with client(peer, **PATIENT) as tracer:
        await begin(peer, tracer)
        writing = asyncio.create_task(tracer.write_settings(SETTINGS))
        await peer.request(0xAD)
        peer.hang_up()
        with pytest.raises(LinkLostError):
            await writing


async def test_a_request_waits_for_a_link_that_is_down_only_so_long() -> None:
    async with Peer() as peer:
        tracer = client(peer, connect_timeout=0.1, **PATIENT)
        await tracer.open()
        states = tracer.state_changes()
        await peer.connection()
    try:
        assert await anext(states) is ConnectionState.DOWN
        with pytest.raises(LinkTimeoutError) as caught:
            await tracer.read_realtime()
        assert isinstance(caught.value, TimeoutError | ConnectionError)
    finally:
        await tracer.aclose()


async def test_a_client_may_start_without_a_link() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(LinkRefusedError):
        await TracerClient(f"127.0.0.1:{port}").open()
    async with TracerClient(f"127.0.0.1:{port}", start_offline=True, backoff=(0.001, 0.001)) as tracer:
        assert tracer.state is ConnectionState.CONNECTING
        async with serve_tcp(port=port):
            assert (await tracer.read_realtime()).charging


async def test_a_peer_that_went_without_a_word_is_given_up_after_some_timeouts(peer: Peer) -> None:
    async with client(peer, timeout=0.01, fence=0.0, retries=2, dead_after=3) as tracer:
        await peer.connection()
        with pytest.raises(ResponseTimeoutError):
            await tracer.read_realtime()
        await peer.connection()
        assert peer.connections == 2
        reading = asyncio.create_task(tracer.read_realtime())
        for _ in range(4):
            await peer.request()
        peer.send(realtime())
        assert await reading == READING


async def test_a_bridge_that_shows_a_banner_and_hangs_up_is_not_hammered(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait doubles with each connection that brought no frame, and starts anew behind one that did."""
    waits: list[float] = []
    done = asyncio.Event()
    sleep = asyncio.sleep

    async def noted(delay: float) -> None:
        waits.append(delay)
        if len(waits) == 6:
            done.set()
        await sleep(0)

    monkeypatch.setattr("tracer_async.client._reconnect.asyncio.sleep", noted)
    monkeypatch.setattr("tracer_async.client._reconnect.random.uniform", lambda low, high: high)
    peer.on_connect = b"Port already in use\r\n"
    async with client(peer, backoff=(1.0, 8.0)):
        for number in range(6):
            await peer.connection()
            peer.send(realtime() if number == 3 else b"")
            hang_up = peer._writer
            assert hang_up is not None
            hang_up.close()
        await done.wait()
    assert waits[:6] == [1.0, 2.0, 4.0, 1.0, 2.0, 4.0]


async def test_frames_that_nobody_fetches_give_way_to_newer_ones(peer: Peer) -> None:
    async with client(peer, **PATIENT) as tracer:
        frames = tracer.frames(maxsize=2)
        reading = asyncio.create_task(tracer.read_realtime())
        await peer.request()
        peer.send(b"".join(Frame(0, number, b"").encode() for number in range(5)) + realtime())
        await reading
        assert frames.dropped == 4
        assert [(await anext(frames)).command for _ in range(2)] == [4, 0xA0]


async def test_nothing_is_done_for_frames_that_nobody_holds_any_more(peer: Peer) -> None:
    async with client(peer, **PATIENT) as tracer:
        frames = tracer.frames()
        del frames
        connection = tracer._connection
        assert connection is not None
        assert not connection._subscriptions


async def test_a_client_that_was_not_opened_says_how_it_is_used() -> None:
    tracer = TracerClient("sim:")
    for call in (tracer.read_realtime, tracer.frames, lambda: tracer.poll(1.0)):
        with pytest.raises(LinkClosedError, match="async with"):
            await call()  # type: ignore[misc]
    await tracer.aclose()
    assert set(tracer.stats) == {0}


# A hostile peer

# Each is less than the 256 KiB within a second for which a connection is given up.
GARBAGE = {
    "random": random.Random(1).randbytes(200_000),
    "sync bytes": SYNC * 10_000,
    "claims": (SYNC + b"\x00\xa0\xc8") * 10_000,
    "claims that end in 7F": (SYNC + b"\x00\xa0\xc6\x7f") * 5_000,
    "frames that nobody asked for": realtime() * 5_000,
    "nothing but line breaks": b"\r\n" * 100_000,
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
async def test_a_flood_of_garbage_costs_bounded_memory_and_no_reading(peer: Peer, garbage: bytes) -> None:
    async with client(peer, **PATIENT) as tracer:
        frames = tracer.frames()
        reading = asyncio.create_task(tracer.read_realtime())
        await peer.request()
        tracemalloc.start()
        try:
            peer.send(garbage)
            peer.send(b"\x00" * 212 + load(1) + realtime())  # zeros end whatever the garbage had begun
            await reading
            while tracer.stats.unsolicited + tracer.stats.late == 0:
                await asyncio.sleep(0)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < len(garbage) + 1_000_000  # what is yet to be sent is held by the peer, in this same process
        assert frames._queue.qsize() <= 256
        while tracer.stats.frames < (5_002 if b"\xd9\x69\x7f" in garbage else 2):
            await asyncio.sleep(0)
        reading = asyncio.create_task(tracer.read_realtime())
        await peer.request()
        peer.send(realtime(OTHER))
        assert await reading == OTHER
