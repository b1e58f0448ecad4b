"""The client with a controller that is slow, silent, faulty or disconnected. The test plays the controller."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import tracemalloc
from typing import Any

import pytest

from tests.drivers import both_drivers, client_of
from tests.peer import READING, SETTINGS, Peer, load, realtime
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
    """A client with short timeouts and no retries."""
    defaults = {"timeout": 0.1, "retries": 0, "fence": 0.1, "backoff": (0.001, 0.01), "max_timeouts": 1000}
    return client_of(peer.url, **defaults | options)


ARGUMENTS: dict[str, list[Any]] = {"set_load": [True], "write_settings": [SETTINGS]}
LONG_TIMEOUTS: dict[str, Any] = {"timeout": 30.0, "fence": 30.0}


class NoRetry(ReadRealtime):
    """A read that never shares a request and is never retried."""

    repeatable = False


async def take_first_reading(peer: Peer, tracer: TracerClient) -> None:
    """Answer the read that the client sends before the first command on a connection."""
    reading = asyncio.create_task(tracer.read_realtime())
    await peer.request(0xA0)
    peer.send(realtime())
    await reading


# No answer


@both_drivers
async def test_a_response_timeout_error_names_command_attempts_and_time(peer: Peer) -> None:
    async with client(peer, retries=2, fence=0.0) as tracer:
        with pytest.raises(ResponseTimeoutError) as caught:
            await tracer.read_realtime()
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.command == 0xA0
        assert caught.value.attempts == 3
        assert caught.value.waited > 0.3 - 1e-6  # a difference of floats is rounded
        assert peer.url in str(caught.value)
        assert tracer.stats.requests == tracer.stats.timeouts == 3


@both_drivers
async def test_a_read_without_answer_is_retried(peer: Peer) -> None:
    async with client(peer, retries=1) as tracer:
        reading = asyncio.create_task(tracer.read_realtime())
        await peer.request(0xA0)
        await peer.request(0xA0)
        peer.send(realtime())
        assert await reading == READING


@both_drivers
async def test_settings_are_never_retried(peer: Peer) -> None:
    async with client(peer, retries=5) as tracer:
        await take_first_reading(peer, tracer)
        with pytest.raises(ResponseTimeoutError):
            await tracer.write_settings(SETTINGS)
        reading = asyncio.create_task(tracer.read_realtime())
        assert (await peer.request()).command == 0xAD
        assert (await peer.request()).command == 0xA0
        peer.send(realtime())
        await reading


# The fence


@both_drivers
async def test_a_late_reply_is_discarded_and_ends_the_fence(peer: Peer) -> None:
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


async def test_late_replies_never_answer_a_later_request(peer: Peer) -> None:
    """Without a fence, one late reply would shift all answers: each caller would get that of the previous request."""
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


async def test_a_reading_that_may_answer_an_older_request_has_the_age_of_that_request(peer: Peer) -> None:
    async with client(peer, fence=0.0) as tracer:
        clock = asyncio.get_running_loop().time
        unanswered = asyncio.create_task(tracer.read_realtime())
        await peer.request()
        first = clock()
        with pytest.raises(ResponseTimeoutError):
            await unanswered
        reading = asyncio.create_task(tracer.read())
        await peer.request()
        replied = clock()
        peer.send(realtime())
        # Sums of floats are rounded.
        assert (await reading).age > replied - first - 1e-6
        # After the second reply nothing is ambiguous: the next reply cannot answer an earlier request.
        asked = clock()
        frames = tracer.frames()
        peer.send(realtime())
        await anext(frames)
        reading = asyncio.create_task(tracer.read())
        await peer.request()
        peer.send(realtime())
        assert (await reading).age <= clock() - asked + 0.1


@both_drivers
async def test_a_reply_to_another_command_is_unsolicited(peer: Peer) -> None:
    async with client(peer, **LONG_TIMEOUTS) as tracer:
        reading = asyncio.create_task(tracer.read_realtime())
        await peer.request()
        peer.send(load(1) + realtime())
        assert await reading == READING
        assert tracer.stats.unsolicited == 1


@both_drivers
async def test_a_late_reply_to_an_earlier_write_does_not_confirm_the_next_write(peer: Peer) -> None:
    """After an unanswered write the client first reads. The answer shows that no reply to the write is pending."""
    async with client(peer) as tracer:
        await take_first_reading(peer, tracer)
        with pytest.raises(ResponseTimeoutError):
            await tracer.write_settings(SETTINGS)
        await peer.request(0xAD)
        writing = asyncio.create_task(tracer.write_settings(SETTINGS))
        await peer.request(0xA0)
        peer.send(realtime())
        await peer.request(0xAD)
        peer.send(Frame(0, 0xAD, b"").encode(start_up=False))
        await writing


@both_drivers
async def test_no_request_is_sent_while_a_duplicate_reply_is_incomplete(peer: Peer) -> None:
    """The first part of the duplicate arrives together with the reply."""
    async with client(peer, **LONG_TIMEOUTS) as tracer:
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
        SYNC + b"\x00\xa0\xc8",  # a header that announces 200 bytes and includes the reply
        realtime()[:-1] + b"\x00",
        b"Port already in use\r\n",
    ],
)
@both_drivers
async def test_a_good_reply_after_damaged_bytes_is_found(peer: Peer, before: bytes) -> None:
    async with client(peer) as tracer:
        reading = asyncio.create_task(tracer.read_realtime())
        await peer.request()
        peer.send(before + realtime())
        assert await reading == READING


@both_drivers
@pytest.mark.parametrize("data", [b"", bytes(23), bytes(25), b"\xff" * 24])
async def test_a_malformed_reply_raises_with_its_bytes_and_keeps_the_connection(peer: Peer, data: bytes) -> None:
    async with client(peer, **LONG_TIMEOUTS) as tracer:
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


@both_drivers
async def test_an_unanswered_switch_is_verified_by_a_reading(peer: Peer) -> None:
    async with client(peer) as tracer:
        await take_first_reading(peer, tracer)
        switching = asyncio.create_task(tracer.set_load(True))
        assert (await peer.request(0xAA)).data == b"\x01"
        await peer.request(0xA0)
        peer.send(realtime(ON))
        assert await switching is LoadState.ON


@both_drivers
async def test_a_switch_that_was_not_executed_is_retried(peer: Peer) -> None:
    async with client(peer, retries=1) as tracer:
        await take_first_reading(peer, tracer)
        switching = asyncio.create_task(tracer.set_load(True))
        await peer.request(0xAA)
        await peer.request(0xA0)
        peer.send(realtime(OFF))
        await peer.request(0xAA)
        peer.send(load(1))
        assert await switching is LoadState.ON


@both_drivers
async def test_a_switch_that_cannot_be_verified_raises_load_unknown_error(peer: Peer) -> None:
    async with client(peer, fence=0.0) as tracer:
        with pytest.raises(LoadUnknownError) as caught:
            await tracer.set_load(True)
        assert isinstance(caught.value.__cause__, ResponseTimeoutError)


@both_drivers
async def test_a_switch_that_the_controller_does_not_follow_raises_load_refused_error(peer: Peer) -> None:
    async with client(peer, retries=3, **LONG_TIMEOUTS) as tracer:
        await take_first_reading(peer, tracer)
        switching = asyncio.create_task(tracer.set_load(True))
        await peer.request(0xAA)
        peer.send(load(0))
        await peer.request(0xA0)
        peer.send(realtime(OFF._replace(over_discharge=True)))
        with pytest.raises(LoadRefusedError, match="over-discharged"):
            await switching
        assert peer.idle


@both_drivers
async def test_a_late_reply_to_an_earlier_switch_is_not_a_success(peer: Peer) -> None:
    """On, off and on again, with each reply after the end of its fence: an ambiguous answer must be verified."""
    async with client(peer, fence=0.0) as tracer:
        await take_first_reading(peer, tracer)
        for on in (True, False, True):
            switching = asyncio.create_task(tracer.set_load(on))
            await peer.request(0xAA)
            await peer.request(0xA0)
            # The reply to the switch is late, and the reading shows that the load was not switched. No answer in time
            # shows whether the controller refused.
            peer.send(load(on) + realtime(OFF if on else ON))
            with pytest.raises(LoadUnknownError) as caught:
                await switching
            assert caught.value.reading is not None
            assert caught.value.reading.load_on is not on


@both_drivers
async def test_a_reading_requested_before_the_switch_does_not_verify_it(peer: Peer) -> None:
    async with client(peer, fence=0.0, retries=1) as tracer:
        await take_first_reading(peer, tracer)
        reading = asyncio.create_task(tracer.execute(NoRetry()))
        await peer.request(0xA0)
        with pytest.raises(ResponseTimeoutError):
            await reading
        switching = asyncio.create_task(tracer.set_load(True))
        await peer.request(0xAA)
        await peer.request(0xA0)
        peer.send(realtime(OFF))  # the reply to the first read, from before the switch
        await peer.request(0xA0)
        peer.send(realtime(ON))
        assert await switching is LoadState.ON


# Order and sharing


async def test_concurrent_reads_share_one_request(peer: Peer) -> None:
    async with client(peer, **LONG_TIMEOUTS) as tracer:
        readings = [asyncio.create_task(tracer.read_realtime()) for _ in range(10)]
        await peer.request()
        readings += [asyncio.create_task(tracer.read_realtime()) for _ in range(10)]
        await asyncio.sleep(0)
        readings[0].cancel()
        peer.send(realtime())
        assert await asyncio.gather(*readings[1:]) == [READING] * 19
        assert tracer.stats.requests == 1
        assert peer.idle


async def test_a_write_is_sent_before_queued_reads(peer: Peer) -> None:
    async with client(peer, **LONG_TIMEOUTS) as tracer:
        await take_first_reading(peer, tracer)
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


@both_drivers
async def test_max_age_returns_the_last_reading_until_it_is_too_old(peer: Peer) -> None:
    async with client(peer, **LONG_TIMEOUTS) as tracer:
        reading = asyncio.create_task(tracer.read_realtime(max_age=60.0))
        await peer.request()
        peer.send(realtime())
        assert await reading == READING
        assert await tracer.read_realtime(max_age=60.0) == READING
        assert tracer.stats.requests == 1
        # The clock of uvloop has whole milliseconds: without this, the reading may still have an age of 0.
        await asyncio.sleep(0.002)
        reading = asyncio.create_task(tracer.read_realtime(max_age=1e-9))
        await peer.request()
        peer.send(realtime(OTHER))
        assert await reading == OTHER
        # A switch invalidates the last reading.
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
async def test_a_reply_to_a_cancelled_request_does_not_answer_the_next_request(peer: Peer, call: str) -> None:
    arguments = ARGUMENTS.get(call, [])
    async with client(peer, **LONG_TIMEOUTS) as tracer:
        if arguments:
            await take_first_reading(peer, tracer)
        asked = asyncio.create_task(getattr(tracer, call)(*arguments))
        request = await peer.request()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        reading = asyncio.create_task(tracer.read_realtime())
        await asyncio.sleep(0)
        assert peer.idle  # the fence delays the next request
        peer.send(Frame(0, request.command, OTHER.to_bytes() if request.command == 0xA0 else b"\x00").encode())
        await peer.request(0xA0)
        peer.send(realtime())
        assert await reading == READING


async def test_a_request_cancelled_in_the_queue_is_never_sent(peer: Peer) -> None:
    async with client(peer, **LONG_TIMEOUTS) as tracer:
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


async def test_cancelling_when_the_answer_arrives_does_not_affect_the_next_request(peer: Peer) -> None:
    async with client(peer, **LONG_TIMEOUTS) as tracer:
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


async def test_a_lost_connection_is_reopened_and_the_read_retried(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tracer_async")
    async with client(peer, **LONG_TIMEOUTS | {"fence": 0.0}, retries=1) as tracer:
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


@both_drivers
async def test_a_write_in_flight_raises_link_lost_error_when_the_connection_is_lost(peer: Peer) -> None:
    async with client(peer, **LONG_TIMEOUTS) as tracer:
        await take_first_reading(peer, tracer)
        writing = asyncio.create_task(tracer.write_settings(SETTINGS))
        await peer.request(0xAD)
        peer.hang_up()
        with pytest.raises(LinkLostError):
            await writing


async def test_a_request_waits_for_a_connection_at_most_connect_timeout() -> None:
    async with Peer() as peer:
        tracer = client(peer, connect_timeout=0.1, **LONG_TIMEOUTS)
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


async def test_a_request_that_waits_for_a_reconnection_names_the_error_of_the_last_attempt() -> None:
    async with serve_tcp() as url:
        tracer = client_of(url, connect_timeout=0.2, backoff=(0.01, 0.01))
        await tracer.open()
        states = tracer.state_changes()
    try:
        assert await anext(states) is ConnectionState.DOWN
        with pytest.raises(LinkTimeoutError, match="last error: refused") as caught:
            await tracer.read_realtime()
        assert isinstance(caught.value.__cause__, LinkRefusedError)
    finally:
        await tracer.aclose()


@both_drivers
async def test_start_offline_opens_a_client_without_a_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(LinkRefusedError):
        await client_of(f"127.0.0.1:{port}").open()
    async with client_of(f"127.0.0.1:{port}", start_offline=True, backoff=(0.001, 0.001)) as tracer:
        assert tracer.state is ConnectionState.CONNECTING
        async with serve_tcp(port=port):
            assert (await tracer.read_realtime()).charging


async def test_a_silent_connection_is_reopened_after_max_timeouts(peer: Peer) -> None:
    async with client(peer, timeout=0.01, fence=0.0, retries=2, max_timeouts=3) as tracer:
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


async def test_the_backoff_grows_while_a_bridge_sends_only_a_banner(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The delay doubles after each connection without a frame, and is reset by a connection with one."""
    waits: list[float] = []
    done = asyncio.Event()
    sleep = asyncio.sleep

    async def sleep_and_record(delay: float) -> None:
        waits.append(delay)
        if len(waits) == 6:
            done.set()
        await sleep(0)

    monkeypatch.setattr("tracer_async.client._reconnect.asyncio.sleep", sleep_and_record)
    monkeypatch.setattr("tracer_async.backoff.random.uniform", lambda low, high: high)
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


async def test_a_full_frames_queue_drops_the_oldest_frames(peer: Peer) -> None:
    async with client(peer, **LONG_TIMEOUTS) as tracer:
        frames = tracer.frames(maxsize=2)
        reading = asyncio.create_task(tracer.read_realtime())
        await peer.request()
        peer.send(b"".join(Frame(0, number, b"").encode() for number in range(5)) + realtime())
        await reading
        assert frames.dropped == 4
        assert [(await anext(frames)).command for _ in range(2)] == [4, 0xA0]


async def test_an_unreferenced_subscription_is_removed(peer: Peer) -> None:
    async with client(peer, **LONG_TIMEOUTS) as tracer:
        frames = tracer.frames()
        del frames
        connection = tracer._connection
        assert connection is not None
        assert not connection._subscriptions


async def test_a_client_that_is_not_open_raises_link_closed_error_with_a_hint() -> None:
    tracer = client_of("sim:")
    for call in (tracer.read_realtime, tracer.frames, lambda: tracer.poll(1.0)):
        with pytest.raises(LinkClosedError, match="async with"):
            await call()  # type: ignore[misc]
    await tracer.aclose()
    assert set(tracer.stats) == {0}


# A hostile peer

# Each is smaller than the 256 KiB within 1 s after which the client closes the connection.
GARBAGE = {
    "random": random.Random(1).randbytes(200_000),
    "sync bytes": SYNC * 10_000,
    "headers": (SYNC + b"\x00\xa0\xc8") * 10_000,
    "headers with an end byte": (SYNC + b"\x00\xa0\xc6\x7f") * 5_000,
    "unsolicited frames": realtime() * 5_000,
    "line breaks": b"\r\n" * 100_000,
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
async def test_a_flood_of_garbage_uses_bounded_memory_and_loses_no_answer(peer: Peer, garbage: bytes) -> None:
    async with client(peer, **LONG_TIMEOUTS) as tracer:
        frames = tracer.frames()
        reading = asyncio.create_task(tracer.read_realtime())
        await peer.request()
        tracemalloc.start()
        try:
            peer.send(garbage)
            peer.send(b"\x00" * 212 + load(1) + realtime())  # zeros complete any frame that the garbage started
            await reading
            while tracer.stats.unsolicited + tracer.stats.late == 0:
                await asyncio.sleep(0)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < len(garbage) + 1_000_000  # the peer runs in this process and holds the unsent bytes
        assert frames._queue.qsize() <= 256
        while tracer.stats.frames < (5_002 if b"\xd9\x69\x7f" in garbage else 2):
            await asyncio.sleep(0)
        reading = asyncio.create_task(tracer.read_realtime())
        await peer.request()
        peer.send(realtime(OTHER))
        assert await reading == OTHER
