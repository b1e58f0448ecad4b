"""A pause within a frame loses no frame, and delays other frames only briefly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import pytest

from tests.promise.stamping_controller import READ, SYNC, Replies, Request, StampingController, frame, realtime
from tests.promise.stamping_lines import NewLoop, all_lines, clients_of, line_of, of_each, on_each_loop, run
from tracer_async import LinkClosedError, RealtimeData, ResponseTimeoutError, TracerClient
from tracer_async.protocol import Answered, Failed, ReadRealtime, Session, SessionOptions

# The header of a reply of 200 bytes that never arrives: it takes 212 bytes to see that it is no frame.
FALSE_HEADER = SYNC + bytes.fromhex("00A0C8")

REPLY = frame(READ, realtime(1234))


def halves(first: float, second: float) -> Any:
    """The script of a line on which each reply comes in two halves, each at its own time after the request."""

    def script(controller: StampingController, request: Request) -> Replies:
        reply = controller.execute(request)
        return [(first, reply[:20]), (second, reply[20:])]

    return script


# Over real links.


@on_each_loop
def test_a_reply_whose_halves_come_90_ms_apart_on_both_sides_of_a_deadline_is_an_answer(new_loop: NewLoop) -> None:
    with all_lines(lambda: halves(0.15, 0.24)) as lines:

        async def main() -> None:
            async with clients_of(lines, timeout=0.2, retries=0) as clients:
                readings = await of_each(clients, TracerClient.read)
                for kind, reading in readings.items():
                    assert reading.data is not None
                    assert lines[kind].controller.number(reading.data.battery_voltage, 0) == 0, kind
                    lines[kind].controller.judge(reading, 0)
                    assert clients[kind].stats.timeouts == 0, kind
                    assert clients[kind].stats.corrupt_frames == 0, kind

        run(new_loop, main)


@on_each_loop
def test_a_pause_of_nearly_a_second_within_a_reply_loses_nothing(new_loop: NewLoop) -> None:
    with all_lines(lambda: halves(0.0, 0.8)) as lines:

        async def main() -> None:
            async with clients_of(lines, timeout=0.2, retries=0) as clients:
                assert all((await of_each(clients, TracerClient.read)).values())
                assert not any(client.stats.noise_bytes + client.stats.timeouts for client in clients.values())

        run(new_loop, main)


@on_each_loop
def test_a_reply_after_a_false_header_is_found_before_the_timeout(new_loop: NewLoop) -> None:
    def script(controller: StampingController, request: Request) -> Replies:
        return [(0, FALSE_HEADER + controller.execute(request))]

    with all_lines(lambda: script) as lines:

        async def main() -> None:
            async with clients_of(lines, timeout=0.4, retries=0) as clients:
                readings = await of_each(clients, TracerClient.read)
                for kind, reading in readings.items():
                    lines[kind].controller.judge(reading, 0)
                    assert clients[kind].stats.timeouts == 0, kind

        run(new_loop, main)


@pytest.mark.parametrize("max_age", [0.0, 60.0])
async def test_read_realtime_with_max_age_raises_on_a_closed_client(max_age: float) -> None:
    with line_of("tcp") as line:
        async with line.client() as tracer:
            fresh = await tracer.read_realtime()
            assert await tracer.read_realtime(max_age=60.0) == fresh
        with pytest.raises(LinkClosedError):
            await tracer.read_realtime(max_age=max_age)
        assert line.controller.count(READ) == 1


# Of the session, in virtual time.


class Outcome(NamedTuple):
    time: float
    """When the request ended, in seconds after it was sent."""
    answer: RealtimeData | None
    session: Session


def read(arrivals: Iterable[tuple[float, bytes]], *, timeout: float = 1.0) -> Outcome:
    """Ask for a reading at 0, and receive bytes, each at its time; return how it ended."""
    session = Session(SessionOptions(name="it", timeout=timeout, retries=0), 0.0)
    session.link_up(0.0)
    session.post(ReadRealtime(), 0.0)
    assert session.data_to_send(0.0)
    waiting = sorted(arrivals, key=lambda arrival: arrival[0])
    now = 0.0
    while True:
        due = session.deadline(now)
        assert due is not None
        assert due <= 10.0, "the request never ends"
        if waiting and waiting[0][0] <= due:
            now, data = waiting.pop(0)
            events = session.receive(data, now, now)
        else:
            now = max(now, due)
            events = session.tick(now)
        for event in events:
            if isinstance(event, Answered):
                return Outcome(now, event.answer.value, session)
            if isinstance(event, Failed):
                assert isinstance(event.error, ResponseTimeoutError)
                return Outcome(now, None, session)


@pytest.mark.parametrize("cut", range(1, len(REPLY)))
@pytest.mark.parametrize("first", [0.0, 0.91, 0.95, 0.999])
def test_halves_90_ms_apart_on_either_side_of_any_deadline_are_an_answer(cut: int, first: float) -> None:
    outcome = read([(first, REPLY[:cut]), (first + 0.09, REPLY[cut:])])
    assert outcome.answer is not None
    assert outcome.answer.battery_voltage == 12.34
    assert outcome.time == first + 0.09
    assert outcome.session.stats.corrupt_frames == outcome.session.stats.noise_bytes == 0


@pytest.mark.parametrize("cut", range(1, len(REPLY)))
@pytest.mark.parametrize("pause", [0.05, 0.3, 0.99])
def test_a_pause_of_under_a_second_loses_nothing(cut: int, pause: float) -> None:
    outcome = read([(0.1, REPLY[:cut]), (0.1 + pause, REPLY[cut:])], timeout=0.2)
    assert outcome.answer is not None
    assert outcome.session.stats.corrupt_frames == outcome.session.stats.noise_bytes == 0


def test_a_deadline_is_extended_only_while_a_reply_to_the_request_is_incomplete() -> None:
    """An incomplete reply to another command, or none, does not delay the timeout."""
    assert read([], timeout=0.2).time == 0.2
    assert read([(0.15, frame(0xAA, b"\x01")[:10])], timeout=0.2).time == 0.2
    assert read([(0.15, bytes(100))], timeout=0.2).time == 0.2


def test_a_deadline_is_extended_once() -> None:
    """Repeated bytes that never form a reply delay the timeout by 1 s at most."""
    drip = [(0.5 * number, b"\0") for number in range(1, 20)]
    outcome = read([(0.1, FALSE_HEADER), *drip], timeout=0.2)
    assert outcome.answer is None
    assert outcome.time <= 0.2 + 1.0


@pytest.mark.parametrize("cut", range(1, len(REPLY)))
def test_a_reply_after_a_false_header_is_found_after_50_ms_without_bytes(cut: int) -> None:
    """Wherever the bytes are cut, and however long the pause is, the wait is 50 ms from the last ones."""
    for pause in (0.0, 0.04, 0.06, 0.5):
        outcome = read([(0.1, FALSE_HEADER + REPLY[:cut]), (0.1 + pause, REPLY[cut:])])
        assert outcome.answer is not None
        assert outcome.answer.battery_voltage == 12.34
        assert outcome.time <= 0.1 + pause + 0.05 + 1e-9


def test_a_pause_does_not_split_a_reply_that_contains_sync_bytes() -> None:
    """After 50 ms the decoder searches for a frame behind them. There is none, so nothing is discarded."""
    data = realtime(1234)[:2] + SYNC + realtime(1234)[8:]
    reply = frame(READ, data)
    for cut in range(16, len(reply)):
        outcome = read([(0.1, reply[:cut]), (0.4, reply[cut:])])
        assert outcome.answer is not None
        assert outcome.answer.battery_voltage == 12.34
        assert outcome.session.stats.corrupt_frames == outcome.session.stats.noise_bytes == 0
