"""Each rule of a session separately, and all short sequences of events."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import inf
from typing import Any

import pytest

from tests.protocol.session_driver import Driver, OwnRead, settings_number
from tests.protocol.session_model import Controller, Fate
from tracer_async import (
    AmbiguousReplyError,
    EchoError,
    LinkClosedError,
    LinkFloodedError,
    LinkLostError,
    LinkRefusedError,
    LinkTimeoutError,
    LoadRefusedError,
    LoadState,
    LoadUnknownError,
    MalformedReplyError,
    ResponseTimeoutError,
    TracerError,
)
from tracer_async.protocol import (
    DUPLICATE_WINDOW,
    SYNC,
    Answer,
    Answered,
    Command,
    Failed,
    Frame,
    LinkFailed,
    ManualControl,
    ReadRealtime,
    Request,
    Session,
    SessionEvent,
    SessionOptions,
)

A0, AA, AD = 0xA0, 0xAA, 0xAD
READ = ReadRealtime()
WRITE = settings_number(1)
ON, OFF = ManualControl(LoadState.ON), ManualControl(LoadState.OFF)


def session(*, connected: bool = True, **options: Any) -> Session:
    """A session without retries, whose connection begins at 0 s."""
    defaults: dict[str, Any] = {"name": "sim:", "retries": 0, "start_up": False}
    session = Session(SessionOptions(**(defaults | options)), 0.0)
    if connected:
        session.link_up(0.0)
    return session


def realtime(*, load: bool = False) -> bytes:
    data = bytearray(24)
    data[12] = load
    return Frame(0x00, A0, bytes(data)).encode(start_up=False)


def switched(load: int) -> bytes:
    return Frame(0x00, AA, bytes([load])).encode(start_up=False)


WRITTEN = Frame(0x00, AD, b"").encode(start_up=False)


def sent(session: Session, now: float) -> int | None:
    """Return the command byte of what is sent now, if anything is."""
    may_send = session.next_request(now) is not None
    raw = session.data_to_send(now)
    assert may_send is bool(raw)
    return raw[len(SYNC) + 1] if raw else None


def send(session: Session, command: int, now: float) -> None:
    assert sent(session, now) == command


def receive(session: Session, raw: bytes, now: float, not_before: float | None = None) -> list[SessionEvent]:
    """Receive bytes; return the outcomes."""
    return outcomes(session.receive(raw, now, now if not_before is None else not_before))


def outcomes(events: list[SessionEvent]) -> list[SessionEvent]:
    return [event for event in events if not isinstance(event, Frame)]


def answer(events: list[SessionEvent]) -> Answer[Any]:
    [event] = outcomes(events)
    assert isinstance(event, Answered)
    return event.answer


def error(events: list[SessionEvent]) -> TracerError:
    [event] = outcomes(events)
    assert isinstance(event, Failed)
    assert str(event.error).startswith("sim:: ")
    return event.error


def clear(session: Session, now: float) -> None:
    """Read once, after which commands can be sent from *now* on."""
    session.post(READ, now - 1)
    send(session, A0, now - 1)
    assert receive(session, realtime(), now - 1)


# The queue


def test_requests_are_sent_in_their_order_and_one_at_a_time() -> None:
    tracer = session()
    first, second = tracer.post(READ, 0.0), tracer.post(READ, 0.0)
    send(tracer, A0, 0.0)
    assert sent(tracer, 0.0) is None
    [event] = receive(tracer, realtime(), 0.1)
    assert isinstance(event, Answered)
    assert event.request is first
    send(tracer, A0, 0.1)
    [event] = receive(tracer, realtime(), 0.5)
    assert isinstance(event, Answered)
    assert event.request is second


def test_commands_overtake_readings() -> None:
    tracer = session()
    clear(tracer, 2.0)
    tracer.post(READ, 2.0)
    tracer.post(ON, 2.0)
    tracer.post(WRITE, 2.0)
    send(tracer, AA, 2.0)
    receive(tracer, switched(1), 2.1)
    send(tracer, AD, 2.1)
    receive(tracer, WRITTEN, 2.2)
    send(tracer, A0, 2.2)


def test_an_equal_reading_is_joined_while_it_waits_and_while_it_is_in_flight() -> None:
    tracer = session()
    request = tracer.post(READ, 0.0, join=True)
    assert tracer.post(READ, 0.0, join=True) is request
    send(tracer, A0, 0.0)
    assert tracer.post(READ, 0.0, join=True) is request
    receive(tracer, realtime(), 0.1)
    assert tracer.post(READ, 0.2, join=True) is not request


def test_a_request_is_joined_only_if_the_caller_permits_it() -> None:
    tracer = session()
    assert tracer.post(READ, 0.0) is not tracer.post(READ, 0.0)


def test_a_load_switch_is_not_joined() -> None:
    tracer = session()
    clear(tracer, 2.0)
    switch = tracer.switch_load(LoadState.ON, 2.0)
    assert tracer.post(ON, 2.0, join=True) is not switch
    send(tracer, AA, 2.0)
    receive(tracer, switched(0), 2.1)
    assert switch.command == READ
    assert tracer.post(READ, 2.1, join=True) is not switch


def test_a_cancelled_request_is_never_sent() -> None:
    tracer = session()
    tracer.cancel(tracer.post(READ, 0.0), 0.0)
    assert sent(tracer, 0.0) is None
    assert tracer.deadline(0.0) is None


def test_after_a_request_is_cancelled_in_flight_the_fence_delays_the_next() -> None:
    tracer = session(fence=1.0)
    request = tracer.post(READ, 0.0)
    send(tracer, A0, 0.0)
    tracer.cancel(request, 0.5)
    tracer.post(READ, 0.5)
    assert sent(tracer, 1.4) is None
    assert tracer.deadline(0.5) == 1.5
    send(tracer, A0, 1.5)


def test_the_probe_is_dropped_when_the_command_that_needs_it_is_cancelled() -> None:
    tracer = session()
    command = tracer.post(WRITE, 0.0)
    assert tracer.deadline(0.0) == 0.0
    tracer.cancel(command, 0.0)
    assert sent(tracer, 0.0) is None
    command = tracer.post(WRITE, 0.0)
    assert tracer.deadline(0.0) == 0.0
    own = tracer.post(OwnRead(3), 0.0)
    tracer.cancel(command, 0.0)
    assert tracer.data_to_send(0.0) == own.data


def test_a_callers_reading_continues_when_the_command_that_waits_for_it_is_cancelled() -> None:
    tracer = session()
    command, reading = tracer.post(WRITE, 0.0), tracer.post(READ, 0.0)
    assert tracer.next_request(0.0) is not None
    tracer.cancel(command, 0.0)
    send(tracer, A0, 0.0)
    [event] = receive(tracer, realtime(), 0.1)
    assert isinstance(event, Answered)
    assert event.request is reading


# What comes before a command


@pytest.mark.parametrize("command", [ON, WRITE])
def test_the_first_command_on_a_connection_is_sent_after_a_reading_and_the_duplicate_window(
    command: Command[Any],
) -> None:
    tracer = session()
    tracer.post(command, 0.0)
    send(tracer, A0, 0.0)
    receive(tracer, realtime(), 0.1)
    assert sent(tracer, 0.3) is None
    assert tracer.deadline(0.1) == 0.1 + DUPLICATE_WINDOW
    send(tracer, command.code, 0.1 + DUPLICATE_WINDOW)


def test_a_second_write_is_sent_after_a_reading_and_the_duplicate_window() -> None:
    tracer = session()
    clear(tracer, 2.0)
    tracer.post(WRITE, 2.0)
    tracer.post(WRITE, 2.0)
    send(tracer, AD, 2.0)
    assert answer(receive(tracer, WRITTEN, 2.1)).value is None
    send(tracer, A0, 2.1)
    receive(tracer, realtime(), 2.2)
    assert sent(tracer, 2.4) is None
    send(tracer, AD, 2.5)


def test_a_queued_reading_is_used_as_the_probe() -> None:
    tracer = session()
    reading = tracer.post(READ, 0.0)
    tracer.post(WRITE, 0.0)
    send(tracer, A0, 0.0)
    [event] = receive(tracer, realtime(), 0.1)
    assert isinstance(event, Answered)
    assert event.request is reading
    send(tracer, AD, 0.5)


def test_a_caller_that_joins_the_probe_gets_its_answer() -> None:
    tracer = session()
    tracer.post(WRITE, 0.0)
    send(tracer, A0, 0.0)
    reading = tracer.post(READ, 0.0, join=True)
    [event] = receive(tracer, realtime(), 0.1)
    assert isinstance(event, Answered)
    assert event.request is reading


def test_a_command_whose_probe_is_not_answered_is_not_sent_and_its_error_says_so() -> None:
    tracer = session()
    tracer.post(WRITE, 0.0)
    tracer.post(READ, 0.0)
    send(tracer, A0, 0.0)
    failed = [event.error for event in tracer.tick(1.0) if isinstance(event, Failed)]
    assert len(failed) == 2
    assert isinstance(failed[1], ResponseTimeoutError)
    assert failed[1].command == A0
    assert failed[1].unsent == AD


def test_the_error_of_a_command_that_was_sent_once_does_not_say_that_it_was_not_sent() -> None:
    """The retry could not be sent, because the reading before it was not answered."""
    tracer = session(retries=1)
    clear(tracer, 2.0)
    tracer.post(ON, 2.0)
    send(tracer, AA, 2.0)
    tracer.tick(3.0)
    for now in (4.0, 6.0):
        send(tracer, A0, now)
        events = tracer.tick(now + 1)
    failed = [event.error for event in events if isinstance(event, Failed)][-1]
    assert isinstance(failed, ResponseTimeoutError)
    assert (failed.command, failed.attempts, failed.waited, failed.unsent) == (AA, 1, 5.0, None)


def test_a_reading_that_may_be_older_than_the_last_write_does_not_permit_the_next_one() -> None:
    """The late reply to an earlier reading answers the reading before a second write."""
    tracer = session(fence=0.0)
    clear(tracer, 2.0)
    tracer.post(READ, 2.0)
    send(tracer, A0, 2.0)
    tracer.tick(3.0)
    tracer.post(WRITE, 3.0)
    send(tracer, AD, 3.0)
    tracer.tick(4.0)
    tracer.post(WRITE, 4.0)
    send(tracer, A0, 4.0)
    assert not receive(tracer, realtime(), 4.1)
    send(tracer, A0, 4.1 + DUPLICATE_WINDOW)
    receive(tracer, realtime(), 4.5)
    send(tracer, AD, 4.75)


def test_a_reading_that_a_command_no_longer_needs_does_not_fail_it() -> None:
    tracer = session(fence=0.0)
    tracer.post(READ, 0.0)
    send(tracer, A0, 0.0)
    tracer.tick(1.0)
    tracer.post(WRITE, 1.0)
    send(tracer, A0, 1.0)
    assert not receive(tracer, realtime(), 1.1)  # perhaps the late reply: it may be old, but the command may be sent
    send(tracer, AD, 1.1 + DUPLICATE_WINDOW)
    assert answer(receive(tracer, WRITTEN, 1.5)).value is None
    assert sent(tracer, 3.0) is None


def test_a_command_whose_reading_has_a_malformed_answer_fails_with_it() -> None:
    tracer = session()
    tracer.post(WRITE, 0.0)
    send(tracer, A0, 0.0)
    failed = [event.error for event in receive(tracer, Frame(0, A0, b"?").encode(), 0.1) if isinstance(event, Failed)]
    assert len(failed) == 2
    assert isinstance(failed[1], MalformedReplyError)


def test_a_command_whose_reading_is_lost_with_the_connection_waits_for_the_next_one() -> None:
    tracer = session()
    tracer.post(READ, 0.0)
    tracer.post(WRITE, 0.0)
    send(tracer, A0, 0.0)
    assert isinstance(error(tracer.link_down(0.5, None)), LinkLostError)
    tracer.link_up(3.0)
    send(tracer, A0, 3.0)


# Retries and timeouts


def test_a_reading_is_sent_as_often_as_allowed() -> None:
    tracer = session(retries=2, fence=0.0)
    tracer.post(READ, 0.0)
    for now in (0.0, 1.0, 2.0):
        send(tracer, A0, now)
        events = tracer.tick(now + 1.0)
    failed = error(events)
    assert isinstance(failed, ResponseTimeoutError)
    assert (failed.command, failed.attempts, failed.waited) == (A0, 3, 3.0)
    assert sent(tracer, 4.0) is None
    assert tracer.stats.timeouts == tracer.stats.requests == 3


def test_settings_are_never_sent_twice() -> None:
    tracer = session(retries=5)
    clear(tracer, 2.0)
    tracer.post(WRITE, 2.0)
    send(tracer, AD, 2.0)
    assert isinstance(error(tracer.tick(3.0)), ResponseTimeoutError)


def test_nothing_times_out_before_its_deadline() -> None:
    tracer = session(timeout=2.0)
    tracer.post(READ, 0.0)
    send(tracer, A0, 0.0)
    assert tracer.deadline(0.0) == 2.0
    assert not tracer.tick(1.99)


def test_the_error_names_an_echoing_line_as_the_cause() -> None:
    tracer = session()
    request = tracer.post(READ, 0.0)
    send(tracer, A0, 0.0)
    assert not receive(tracer, request.data, 0.1)
    assert isinstance(error(tracer.tick(1.0)), EchoError)
    assert tracer.stats.echoes == 1
    assert not tracer.receive(request.data, 1.1, 1.1)[1:]  # a late echo belongs to no request


def test_after_the_maximum_of_consecutive_timeouts_the_connection_is_closed() -> None:
    tracer = session(fence=0.0, max_timeouts=2)
    for now in (0.0, 1.0):
        tracer.post(READ, now)
        send(tracer, A0, now)
        events = tracer.tick(now + 1.0)
        assert len(events) == 1 + int(now)
    assert isinstance(events[1], LinkFailed)
    assert str(events[1].error) == "sim:: 2 requests in a row were not answered"


def test_requests_that_are_cancelled_early_do_not_close_the_connection_before_the_time_of_as_many_timeouts() -> None:
    tracer = session(fence=0.0, timeout=0.5, max_timeouts=3)
    for number in range(6):
        request = tracer.post(READ, number * 0.25)
        send(tracer, A0, number * 0.25)
        assert tracer.cancel(request, number * 0.25 + 0.125) == []
    request = tracer.post(READ, 1.5)
    send(tracer, A0, 1.5)
    [event] = tracer.cancel(request, 1.5)
    assert isinstance(event, LinkFailed)
    assert event.error.reason == "7 requests in a row were not answered"


def test_fewer_timeouts_than_the_maximum_do_not_close_the_connection_however_long_they_take() -> None:
    tracer = session(fence=0.0, max_timeouts=3)
    for now in (0.0, 100.0):
        tracer.post(READ, now)
        send(tracer, A0, now)
        [event] = tracer.tick(now + 1.0)
        assert isinstance(event, Failed)


def test_a_fresh_reading_that_fails_takes_no_command_with_it() -> None:
    tracer = session(fence=0.0)
    reading = tracer.post_fresh(0.0)
    send(tracer, A0, 0.0)
    tracer.post(WRITE, 0.5)
    [event] = tracer.tick(1.0)
    assert isinstance(event, Failed)
    assert event.request is reading


def test_an_answer_resets_the_count_of_consecutive_timeouts() -> None:
    tracer = session(fence=0.0, max_timeouts=2)
    for now in (0.0, 2.0):
        tracer.post(READ, now)
        send(tracer, A0, now)
        assert len(tracer.tick(now + 1.0)) == 1
        tracer.post(READ, now + 1.0)
        send(tracer, A0, now + 1.0)
        assert answer(tracer.receive(realtime(), now + 1.5, now + 1.5))


# Replies


def test_an_answer_has_its_frame_and_its_times() -> None:
    tracer = session()
    tracer.post(READ, 0.5)
    send(tracer, A0, 0.5)
    events = tracer.receive(realtime(load=True), 0.75, 0.625)
    result = answer(events)
    assert result.value.load_on
    assert events[0] == result.frame
    assert (result.since, result.received_at, result.ambiguous) == (0.5, 0.75, False)


def test_late_and_unsolicited_replies_are_counted() -> None:
    tracer = session()
    tracer.post(READ, 0.0)
    send(tracer, A0, 0.0)
    assert not receive(tracer, switched(1), 0.5)
    tracer.tick(1.0)
    assert not receive(tracer, realtime(), 1.5)
    assert (tracer.stats.late, tracer.stats.unsolicited, tracer.stats.answers) == (1, 1, 0)


def test_all_counters_count() -> None:
    tracer = session(fence=0.0)
    request = tracer.post(READ, 0.0)
    send(tracer, A0, 0.0)
    for number in range(3):
        assert not receive(tracer, request.data + switched(1), 0.1)  # an echo and an unsolicited frame
        assert tracer.stats.unsolicited == tracer.stats.echoes == number + 1
    assert answer(tracer.receive(realtime(), 0.2, 0.2))
    for now in (20.0, 40.0, 60.0):
        late = tracer.post(READ, now)
        send(tracer, A0, now)
        assert not tracer.cancel(late, now)
        assert not receive(tracer, realtime(), now + 5.0)  # a late reply
        tracer.post(READ, now + 10.0)
        send(tracer, A0, now + 10.0)
        assert answer(tracer.receive(realtime(), now + 10.0, now + 10.0))
    tracer.link_down(100.0, None)
    tracer.link_up(100.0)
    stats = tracer.stats
    assert (stats.requests, stats.answers, stats.late, stats.links) == (7, 4, 3, 2)


def test_the_time_of_the_last_command_is_not_that_of_a_reading() -> None:
    tracer = session()
    assert tracer.last_command_sent == -inf
    clear(tracer, 2.0)
    assert tracer.last_command_sent == -inf
    tracer.post(WRITE, 2.0)
    send(tracer, AD, 2.0)
    assert tracer.last_command_sent == 2.0
    receive(tracer, WRITTEN, 2.5)
    tracer.post(READ, 3.0)
    send(tracer, A0, 3.0)
    assert tracer.last_command_sent == 2.0


class LowPriority(ManualControl):
    """A command for which readings need not wait."""

    urgent = False


def test_a_command_that_is_not_urgent_waits_for_its_reading_too() -> None:
    tracer = session()
    request = tracer.post(LowPriority(LoadState.ON), 0.0)
    send(tracer, A0, 0.0)
    assert not receive(tracer, realtime(), 0.1)[1:]
    assert sent(tracer, 0.1) is None
    send(tracer, AA, 0.1 + DUPLICATE_WINDOW)
    [event] = receive(tracer, switched(1), 0.5)
    assert isinstance(event, Answered)
    assert event.request is request


def test_an_unanswered_request_is_remembered_for_the_late_reply_window() -> None:
    """The first request is forgotten 10 s after its end, the second one is not yet."""
    tracer = session(fence=0.0)
    for now in (0.0, 2.0):
        tracer.post(READ, now)
        send(tracer, A0, now)
        tracer.tick(now + 1.0)
    tracer.post(READ, 11.0)
    send(tracer, A0, 11.0)
    result = answer(tracer.receive(realtime(), 11.0, 11.0))
    assert (result.since, result.ambiguous) == (2.0, True)
    tracer.post(READ, 30.0)
    send(tracer, A0, 30.0)
    result = answer(tracer.receive(realtime(), 30.0, 30.0))
    assert (result.since, result.ambiguous) == (30.0, False)


def test_a_load_switch_with_an_ambiguous_answer_is_read_back() -> None:
    tracer = session()
    clear(tracer, 2.0)
    tracer.switch_load(LoadState.ON, 2.0)
    send(tracer, AA, 2.0)
    assert answer(tracer.receive(switched(1), 2.1, 2.1))
    tracer.switch_load(LoadState.ON, 2.1)
    send(tracer, AA, 2.1)
    assert not receive(tracer, switched(1), 2.2)  # perhaps the copy
    send(tracer, A0, 2.2 + DUPLICATE_WINDOW)
    assert answer(tracer.receive(realtime(load=True), 2.5, 2.5)).value is LoadState.ON


def test_an_echo_that_may_be_the_reply_makes_a_command_ambiguous() -> None:
    tracer = session()
    reading = tracer.post(READ, 0.0)
    send(tracer, A0, 0.0)
    receive(tracer, reading.data + realtime(), 0.1)
    request = tracer.post(ON, 1.0)
    send(tracer, AA, 1.0)
    failed = error(tracer.receive(request.data * 2, 1.1, 1.1))
    assert isinstance(failed, AmbiguousReplyError)
    assert (failed.command, failed.raw) == (AA, b"\x01")


class Odd(Command[int]):
    """A custom command with a bug."""

    code = 0xB0

    def to_bytes(self) -> bytes:
        return b""

    def decode_reply(self, data: bytes) -> int:
        raise {b"": ValueError("no number"), b"\x01": ZeroDivisionError()}[data]


@pytest.mark.parametrize(
    ("data", "cause", "reason"),
    [(b"", ValueError, "no number"), (b"\x01", ZeroDivisionError, "ZeroDivisionError"), (b"?", KeyError, "?")],
)
def test_any_exception_of_decode_reply_raises_malformed_reply_error(
    data: bytes, cause: type[Exception], reason: str
) -> None:
    tracer = session()
    clear(tracer, 2.0)
    tracer.post(Odd(), 2.0)
    send(tracer, 0xB0, 2.0)
    failed = error(tracer.receive(Frame(0, 0xB0, data).encode(), 2.1, 2.1))
    assert isinstance(failed, MalformedReplyError)
    assert isinstance(failed.__cause__, cause)
    assert (failed.command, failed.raw) == (0xB0, data)
    assert reason in str(failed)
    tracer.post(READ, 2.1)
    send(tracer, A0, 2.1)  # the connection stays usable


def test_frames_that_arrived_with_an_answer_cannot_answer_the_next_request() -> None:
    tracer = session()
    tracer.post(READ, 0.0)
    second = tracer.post(READ, 0.0)
    send(tracer, A0, 0.0)
    assert answer(tracer.receive(realtime() + realtime(load=True), 0.1, 0.1)).value.load_on is False
    assert tracer.stats.unsolicited == 1
    assert second.attempts == 0


# Pauses within a frame, and the quiet line


def test_a_reply_whose_halves_come_on_both_sides_of_the_deadline_is_an_answer() -> None:
    """90 ms apart."""
    tracer = session()
    tracer.post(READ, 0.0)
    send(tracer, A0, 0.0)
    assert not receive(tracer, realtime()[:20], 0.95)
    assert not tracer.tick(1.0)
    assert answer(tracer.receive(realtime()[20:], 1.04, 0.95))
    assert tracer.stats.timeouts == 0


def test_the_deadline_is_extended_once() -> None:
    tracer = session()
    tracer.post(READ, 0.0)
    send(tracer, A0, 0.0)
    receive(tracer, realtime()[:20], 0.9)
    assert not tracer.tick(1.0)
    receive(tracer, realtime()[20:25], 1.5)
    assert isinstance(error(tracer.tick(1.9)), ResponseTimeoutError)


@pytest.mark.parametrize("stray", [b"\xeb", b"\xeb\x90", b"\xeb\x90\xeb"], ids=bytes.hex)
@pytest.mark.parametrize("received", range(6, 36))
def test_stray_sync_bytes_before_a_reply_do_not_prevent_the_extension(stray: bytes, received: int) -> None:
    tracer = session()
    tracer.post(READ, 0.0)
    send(tracer, A0, 0.0)
    reply = stray + realtime()
    receive(tracer, reply[:received], 0.9)
    assert not tracer.tick(1.0)
    assert answer(tracer.receive(reply[received:], 1.1, 1.0))


@pytest.mark.parametrize("begun", [SYNC + b"\x00\xaa", SYNC + b"\x00\xad\x00", SYNC[:2] + SYNC + b"\x00\xaa\x01"])
def test_bytes_that_cannot_be_the_reply_do_not_extend_the_deadline(begun: bytes) -> None:
    tracer = session()
    tracer.post(READ, 0.0)
    send(tracer, A0, 0.0)
    receive(tracer, begun, 0.9)
    assert isinstance(error(tracer.tick(1.0)), ResponseTimeoutError)


@pytest.mark.parametrize("headers", [1, 2, 3])
def test_a_reply_behind_false_headers_is_found_after_50_ms_of_quiet(headers: int) -> None:
    tracer = session()
    tracer.post(READ, 0.0)
    send(tracer, A0, 0.0)
    assert not receive(tracer, (SYNC + b"\x00\xa0\xc8") * headers + realtime(), 0.1)
    assert tracer.deadline(0.1) == pytest.approx(0.15)
    assert not tracer.tick(0.149)
    assert answer(tracer.tick(0.151))


def test_a_reply_behind_a_partial_copy_of_its_sync_bytes_is_found_after_50_ms_of_quiet() -> None:
    """Together with the request's ID, the extra EB 90 forms a header that claims 22 bytes."""
    tracer = session()
    assert not receive(tracer, SYNC[:2] + Frame(0x16, AA, b"\x01").encode(start_up=False), 0.1)
    assert tracer.tick(0.151) == [Frame(0x16, AA, b"\x01")]


def test_each_of_several_frames_behind_false_headers_is_found_after_50_ms_of_quiet() -> None:
    """If it were found later, the second frame could answer a request sent after its arrival."""
    tracer = session()
    assert not receive(tracer, (SYNC + b"\x00\xa0\xc8" + realtime()) * 2, 0.1)
    assert len(tracer.tick(0.151)) == 2
    assert tracer.deadline(0.151) is None


def test_a_frame_found_in_a_pause_did_not_arrive_before_its_bytes() -> None:
    """A copy behind a false header is read late. The window is checked with the earliest arrival of its bytes."""
    tracer = session()
    tracer.post(READ, 0.0)
    send(tracer, A0, 0.0)
    receive(tracer, realtime(), 0.1)
    tracer.post(READ, 0.1)
    send(tracer, A0, 0.1)
    assert not receive(tracer, SYNC + b"\x00\xa0\xc8" + realtime(), 0.9, not_before=0.1)
    result = answer(tracer.tick(0.96))
    assert result.ambiguous
    assert result.since == 0.0


def test_an_incomplete_frame_is_discarded_after_a_second_without_bytes() -> None:
    tracer = session()
    assert not receive(tracer, realtime()[:20], 0.5)
    assert tracer.deadline(0.5) == 1.5
    tracer.tick(1.4)
    assert tracer.stats.corrupt_frames == 0
    tracer.tick(1.5)
    assert tracer.stats.corrupt_frames == 1
    assert tracer.deadline(1.5) is None


def test_an_incomplete_frame_is_kept_if_no_complete_frame_follows_it() -> None:
    tracer = session()
    tracer.post(READ, 0.0)
    send(tracer, A0, 0.0)
    stray = SYNC + b"\x00\xa0\x18" + SYNC + bytes(5)
    receive(tracer, stray, 0.1)
    assert not tracer.tick(0.151)
    assert tracer.deadline(0.151) == 1.0
    frame = Frame(0, A0, SYNC + bytes(18)).encode(start_up=False)
    assert answer(tracer.receive(frame[len(stray) :], 0.2, 0.15))


def test_no_request_is_sent_while_a_frame_is_being_received() -> None:
    tracer = session()
    receive(tracer, realtime()[:20], 0.5)
    tracer.post(READ, 0.6)
    assert sent(tracer, 0.6) is None
    assert tracer.deadline(0.6) == 0.5 + DUPLICATE_WINDOW
    send(tracer, A0, 0.75)


def test_endless_bytes_do_not_delay_requests_forever() -> None:
    tracer = session()
    tracer.post(READ, 0.0)
    now, steps = 0.0, 0
    while tracer.next_request(now) is None:
        now, steps = now + 0.1, steps + 1
        receive(tracer, SYNC[:4] if steps % 2 else SYNC[4:] + SYNC[:1], now)
        assert steps < 200
    assert steps == 0
    receive(tracer, SYNC[:4], 0.0)
    while tracer.next_request(now) is None:
        now += 0.1
        receive(tracer, b"\xeb", now)
        assert now < 1.5
    assert now > 0.5


def test_a_frame_that_came_during_a_stall_is_found_before_the_next_request() -> None:
    """It is behind a false header. If it were found after the request, it would look like the answer."""
    tracer = session()
    receive(tracer, SYNC + b"\x00\xa0\xc8", 0.1)
    tracer.post(READ, 0.2)
    assert tracer.deadline(0.2) is not None
    assert not receive(tracer, realtime(), 12.0, not_before=0.2)
    assert sent(tracer, 12.0) is None
    assert len(tracer.tick(12.06)) == 1
    send(tracer, A0, 12.06)


def test_a_connection_with_too_many_unsolicited_bytes_is_given_up() -> None:
    tracer = session()
    chunk = bytes(4096)
    events: list[SessionEvent] = []
    for number in range(200):
        events = tracer.receive(chunk, 1.0 + number / 1000, 1.0 + number / 1000)
        if events:
            break
    assert 60 <= number <= 70
    [event] = events
    assert isinstance(event, LinkFailed)
    assert isinstance(event.error, LinkFloodedError)
    assert str(event.error).startswith("sim:: received more than 256 KiB/s of unsolicited bytes. ")


def test_the_same_number_of_unsolicited_bytes_over_many_seconds_is_not_a_flood() -> None:
    tracer = session()
    for number in range(600):
        assert not tracer.receive(bytes(4096), number / 60, number / 60)


def test_answers_do_not_count_as_a_flood() -> None:
    tracer = session()
    for number in range(8000):
        now = number / 10000
        tracer.post(READ, now)
        send(tracer, A0, now)
        assert answer(tracer.receive(realtime(), now, now))


# The load


def test_an_unambiguous_answer_with_the_wanted_state_ends_a_load_switch() -> None:
    tracer = session()
    clear(tracer, 2.0)
    tracer.switch_load(LoadState.ON, 2.0)
    send(tracer, AA, 2.0)
    assert answer(tracer.receive(switched(1), 2.1, 2.1)).value is LoadState.ON


def test_a_refused_load_switch_is_read_back() -> None:
    tracer = session()
    clear(tracer, 2.0)
    tracer.switch_load(LoadState.ON, 2.0)
    send(tracer, AA, 2.0)
    assert not receive(tracer, switched(0), 2.1)
    send(tracer, A0, 2.1)
    failed = error(tracer.receive(realtime(), 2.2, 2.2))
    assert isinstance(failed, LoadRefusedError)
    assert failed.wanted is True
    assert not failed.reading.load_on


def test_a_lost_answer_is_read_back_and_the_command_repeated() -> None:
    tracer = session(retries=1)
    clear(tracer, 2.0)
    tracer.switch_load(LoadState.ON, 2.0)
    send(tracer, AA, 2.0)
    tracer.tick(3.0)
    send(tracer, A0, 4.0)
    assert not receive(tracer, realtime(), 4.1)
    send(tracer, AA, 4.1)
    tracer.tick(5.2)
    send(tracer, A0, 6.2)
    assert answer(tracer.receive(realtime(load=True), 6.3, 6.3)).value is LoadState.ON


def test_without_an_answer_to_the_command_the_load_is_unknown_and_not_refused() -> None:
    tracer = session()
    clear(tracer, 2.0)
    tracer.switch_load(LoadState.ON, 2.0)
    send(tracer, AA, 2.0)
    tracer.tick(3.0)
    send(tracer, A0, 4.0)
    failed = error(tracer.receive(realtime(), 4.1, 4.1))
    assert isinstance(failed, LoadUnknownError)
    assert failed.sent
    assert failed.reading is not None


def test_a_duplicate_of_an_earlier_reply_is_not_a_refusal() -> None:
    """The copy of the answer to OFF answers ON: the state is read back, and the command repeated."""
    tracer = session(retries=1)
    clear(tracer, 2.0)
    tracer.switch_load(LoadState.OFF, 2.0)
    send(tracer, AA, 2.0)
    receive(tracer, switched(0), 2.1)
    tracer.switch_load(LoadState.ON, 2.1)
    send(tracer, AA, 2.1)
    assert not receive(tracer, switched(0), 2.2)
    send(tracer, A0, 2.5)
    assert not receive(tracer, realtime(), 2.6)
    send(tracer, AA, 2.6)
    assert answer(tracer.receive(switched(1), 2.7, 2.7)).value is LoadState.ON


def test_without_any_answer_after_the_command_the_load_is_unknown() -> None:
    tracer = session(fence=0.0)
    clear(tracer, 2.0)
    tracer.switch_load(LoadState.ON, 2.0)
    send(tracer, AA, 2.0)
    tracer.tick(3.0)
    send(tracer, A0, 3.0)
    failed = error(tracer.tick(4.0))
    assert isinstance(failed, LoadUnknownError)
    assert failed.sent
    assert failed.reading is None
    assert isinstance(failed.__cause__, ResponseTimeoutError)


def test_a_reading_from_before_the_last_command_is_not_reported() -> None:
    tracer = session(retries=1, fence=0.0)
    clear(tracer, 2.0)
    tracer.switch_load(LoadState.ON, 2.0)
    send(tracer, AA, 2.0)
    tracer.tick(3.0)
    send(tracer, A0, 3.0)
    receive(tracer, realtime(), 3.1)
    send(tracer, AA, 3.1)  # the command is repeated, and nothing is answered any more
    tracer.tick(4.1)
    send(tracer, A0, 4.1)
    tracer.tick(5.1)
    send(tracer, A0, 5.1)
    failed = error(tracer.tick(6.1))
    assert isinstance(failed, LoadUnknownError)
    assert failed.reading is None
    assert "neither the command nor a reading after it got a certain answer" in str(failed)


def test_a_load_switch_is_not_sent_when_the_reading_before_it_is_not_answered() -> None:
    tracer = session()
    tracer.switch_load(LoadState.ON, 0.0)
    send(tracer, A0, 0.0)
    failed = [event.error for event in tracer.tick(1.0) if isinstance(event, Failed)][-1]
    assert isinstance(failed, LoadUnknownError)
    assert not failed.sent


def test_only_readings_are_sent_during_a_load_switch() -> None:
    tracer = session(fence=0.0)
    clear(tracer, 2.0)
    tracer.switch_load(LoadState.ON, 2.0)
    tracer.post(WRITE, 2.0)
    send(tracer, AA, 2.0)
    tracer.tick(3.0)
    send(tracer, A0, 3.0)
    receive(tracer, realtime(load=True), 3.1)
    send(tracer, AD, 3.4)


@pytest.mark.parametrize("step", ["command", "reading"])
def test_the_outcome_of_a_load_switch_that_waits_too_long_for_a_connection_is_unknown(step: str) -> None:
    tracer = session(retries=1)
    clear(tracer, 2.0)
    tracer.switch_load(LoadState.ON, 2.0)
    send(tracer, AA, 2.0)
    if step == "command":  # to be repeated
        tracer.tick(3.0)
        send(tracer, A0, 4.0)
        receive(tracer, realtime(), 4.1)
    tracer.link_down(5.0, None)
    failed = error(tracer.tick(10.0))
    assert isinstance(failed, LoadUnknownError)
    assert isinstance(failed.__cause__, LinkTimeoutError)


# The connection


def test_a_session_is_idle_when_nothing_can_become_due() -> None:
    tracer = session(connected=False)
    idle = [tracer.is_idle()]
    assert tracer.deadline(0.0) is None
    tracer.post(READ, 0.0)
    idle.append(tracer.is_idle())
    tracer.link_up(0.0)
    send(tracer, A0, 0.0)
    idle.append(tracer.is_idle())
    receive(tracer, realtime() + SYNC, 0.1)
    idle.append(tracer.is_idle())
    tracer.tick(1.1)
    idle.append(tracer.is_idle())
    assert idle == [True, False, False, False, True]
    assert tracer.deadline(1.1) is None


def test_without_a_connection_nothing_is_sent_and_requests_wait_for_one() -> None:
    tracer = session(connected=False)
    tracer.post(READ, 1.0)
    assert sent(tracer, 1.0) is None
    assert tracer.deadline(1.0) == 6.0
    tracer.link_up(2.0)
    send(tracer, A0, 2.0)
    assert tracer.stats.links == 1


@pytest.mark.parametrize(
    ("cause", "text"),
    [
        (None, "within 5 s$"),
        (OSError("unplugged"), "within 5 s; last error: unplugged$"),
        (LinkRefusedError("sim:", "refused"), "within 5 s; last error: refused$"),
    ],
)
def test_a_request_fails_after_the_link_timeout_and_names_the_last_error(cause: Exception | None, text: str) -> None:
    tracer = session(connected=False)
    if cause is not None:
        tracer.note_down(cause)
    tracer.post(READ, 1.0)
    tracer.switch_load(LoadState.ON, 1.0)
    assert not tracer.tick(5.9)
    failed = [event.error for event in tracer.tick(6.0) if isinstance(event, Failed)]
    assert [type(error) for error in failed] == [LinkTimeoutError] * 2
    with pytest.raises(LinkTimeoutError, match=text):
        raise failed[0]
    assert failed[0].__cause__ is cause


def test_a_reading_in_flight_is_sent_again_on_the_next_connection() -> None:
    tracer = session(retries=1)
    tracer.post(READ, 0.0)
    send(tracer, A0, 0.0)
    assert not tracer.link_down(0.5, None)
    tracer.link_up(2.0)
    send(tracer, A0, 2.0)


@pytest.mark.parametrize(
    ("cause", "text"), [(None, r"once\. The command may"), (OSError("reset"), r"once \(reset\)\.")]
)
def test_settings_in_flight_fail_with_their_connection(cause: Exception | None, text: str) -> None:
    tracer = session(retries=5)
    clear(tracer, 2.0)
    tracer.post(WRITE, 2.0)
    send(tracer, AD, 2.0)
    assert tracer.has_unanswered_command(2.0)
    failed = error(tracer.link_down(2.5, cause))
    assert isinstance(failed, LinkLostError)
    with pytest.raises(LinkLostError, match=text):
        raise failed
    assert tracer.has_unanswered_command(2.5)


def test_a_reply_that_is_found_when_the_connection_ends_is_an_answer() -> None:
    tracer = session()
    tracer.post(READ, 0.0)
    send(tracer, A0, 0.0)
    receive(tracer, SYNC + b"\x00\xa0\xc8" + realtime(), 0.1)
    assert answer(tracer.link_down(0.11, None))


def test_the_probe_is_dropped_when_its_connection_ends() -> None:
    tracer = session(retries=1)
    tracer.post(WRITE, 0.0)
    send(tracer, A0, 0.0)
    assert not tracer.link_down(0.5, None)
    tracer.link_up(3.0)
    send(tracer, A0, 3.0)
    receive(tracer, realtime(), 3.1)
    assert sent(tracer, 3.1) is None
    send(tracer, A0, 3.1 + DUPLICATE_WINDOW)  # perhaps the reply to the first reading, from the lost connection
    receive(tracer, realtime(), 4.0)
    send(tracer, AD, 4.0 + DUPLICATE_WINDOW)


def test_a_callers_reading_is_kept_when_its_connection_ends() -> None:
    tracer = session(retries=1)
    tracer.post(READ, 0.0)
    command = tracer.post(WRITE, 0.0)
    assert tracer.next_request(0.0) is not None
    assert not tracer.link_down(0.5, None)
    tracer.cancel(command, 0.5)
    tracer.link_up(1.0)
    send(tracer, A0, 1.0)
    assert answer(tracer.receive(realtime(), 1.1, 1.1))


def test_closing_fails_all_requests_now_and_from_now_on() -> None:
    tracer = session()
    requests = [tracer.post(READ, 0.0), tracer.post(READ, 0.0), tracer.switch_load(LoadState.ON, 0.0)]
    send(tracer, A0, 0.0)
    events = tracer.close(0.5)
    assert {event.request for event in events if isinstance(event, Failed)} >= set(requests)
    assert {repr(event.error) for event in events if isinstance(event, Failed)} == {
        "LinkClosedError('sim:: the client was closed')"
    }
    assert tracer.deadline(5.0) is None
    assert sent(tracer, 5.0) is None
    assert not tracer.tick(5.0)
    with pytest.raises(LinkClosedError, match=r"^sim:: the client is closed$"):
        tracer.post(READ, 5.0)
    with pytest.raises(LinkClosedError):
        tracer.switch_load(LoadState.ON, 5.0)
    assert not session().close(0.0)


def test_few_encoded_requests_are_kept() -> None:
    """The protocol has few different requests, but custom commands can have many."""
    tracer = session(connected=False)
    requests: list[Request] = [tracer.post(settings_number(number), 0.0) for number in range(40)]
    assert len({request.data for request in requests}) == 40


# All short histories


@pytest.mark.parametrize("length", [3, 4])
def test_every_short_history_keeps_all_properties(length: int) -> None:
    """All sequences of that many steps, then a line without faults. The driver judges each sequence by the model."""

    def cancel_after_a_stall(driver: Driver) -> None:
        driver.stall(1.0)
        driver.cancel_oldest()

    steps: dict[str, Callable[[Driver], object]] = {
        "read": lambda driver: driver.post(READ, join=True),
        "on": lambda driver: driver.switch(LoadState.ON),
        "write": lambda driver: driver.post(settings_number(len(driver.by_request))),
        "cancel": Driver.cancel_oldest,
        "lose": lambda driver: driver.fates.append(Fate(reply_lost=True)),
        "delay": lambda driver: driver.fates.append(Fate(reply_delay=9 / 8)),
        "double": lambda driver: driver.fates.append(Fate(copies=(15 / 64,))),
        "wait": lambda driver: driver.advance(1 / 4),
        "time out": lambda driver: driver.advance(1.0),
        "stall": lambda driver: driver.stall(1.0),
        "cancel after a stall": cancel_after_a_stall,
    }
    histories = 0
    for history in product(steps.values(), repeat=length):
        histories += 1
        options = SessionOptions(name="sim:", retries=1, fence=0.5, start_up=False)
        driver = Driver(options, Controller(), echoes=False)
        driver.connect()
        for step in history:
            step(driver)
            driver.advance(1 / 32)
        driver.advance(100.0)
        assert not driver.outstanding
    assert histories == 11**length


@pytest.mark.parametrize("what", ["read", "switch"])
@pytest.mark.parametrize("stalled", [2.0, 3.0, 4.0])
@pytest.mark.parametrize("delay", [9.0, 9.5, 63 / 64 * 10])
def test_a_cancellation_during_a_stall_does_not_make_a_late_reply_certain(
    what: str, stalled: float, delay: float
) -> None:
    """The late reply arrives during the stall. It is read after the time until which a late reply can be expected."""
    options = SessionOptions(name="sim:", retries=0, fence=0.5, start_up=False)
    driver = Driver(options, Controller(), echoes=False)

    def ask() -> None:
        if what == "read":
            driver.post(READ)
        else:
            driver.switch(LoadState.ON)

    driver.connect()
    driver.post(READ)
    driver.advance(1.0)
    driver.fates.append(Fate(reply_delay=delay - 1 / 64))
    ask()
    driver.advance(8.5)
    driver.fates.append(Fate(request_lost=True))
    ask()
    driver.post(OwnRead(1))
    driver.run()
    other = driver.outstanding[-1]
    driver.stall(stalled)
    driver.cancel(other)
    driver.advance(30.0)
    assert not driver.outstanding


@pytest.mark.parametrize("pattern", [b"\x00", b"\xeb", b"\xeb\x00", b"\xeb\x90", b"\xaa\x55"], ids=bytes.hex)
def test_endless_bytes_delay_a_request_by_at_most_the_timeout(pattern: bytes) -> None:
    conversation = session(timeout=1.0)
    conversation.post(READ, 0.0)
    for millisecond in range(1, 1100):
        now = millisecond / 1000
        conversation.receive(pattern[millisecond % len(pattern) :][:1], now, now - 0.001)
        conversation.tick(now)
        if sent(conversation, now) == A0:
            return
    pytest.fail("the request was not sent")


def test_a_reading_that_a_copy_answered_permits_no_command() -> None:
    """The reading's own reply comes after the next write and looks like the answer to the next reading."""
    conversation = session(fence=1.0)
    for now, posted in ((0.0, 0.0), (0.11, 0.11)):
        conversation.post(READ, posted)
        send(conversation, A0, now)
        # The reply to the first reading answers both: its copy comes 0.24 s later.
        assert answer(receive(conversation, realtime(), 0.1 if not now else 0.34))
    conversation.post(WRITE, 0.6)
    send(conversation, AD, 0.6)
    assert isinstance(error(conversation.tick(1.6)), ResponseTimeoutError)
    conversation.post(WRITE, 2.0)
    send(conversation, A0, 2.6)
    # The second reading's own reply arrives, so the reading before the command is repeated.
    assert not receive(conversation, realtime(), 3.5)
    send(conversation, A0, 3.75)
    # The reply to the first write comes now. It confirms nothing.
    assert not receive(conversation, WRITTEN, 3.8)
    assert answer(receive(conversation, realtime(), 3.9))
    send(conversation, AD, 4.15)
    assert not answer(receive(conversation, WRITTEN, 4.2)).ambiguous


def test_a_damaged_echo_of_the_first_reading_does_not_prove_that_a_line_does_not_echo() -> None:
    conversation = session()
    conversation.post(READ, 0.0)
    send(conversation, A0, 0.0)
    echo = bytearray(Frame(0x16, A0, b"").encode(start_up=False))
    echo[-2] ^= 1
    assert not receive(conversation, bytes(echo), 0.01)
    assert answer(receive(conversation, realtime(), 0.1))
    conversation.post(ON, 0.5)
    send(conversation, AA, 0.5)
    assert not receive(conversation, Frame(0x16, AA, b"\x01").encode(start_up=False), 0.51)
    assert answer(receive(conversation, switched(1), 0.6)).value is LoadState.ON


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_decode_reply_propagates(kind: type[BaseException]) -> None:
    class Interrupted(ReadRealtime):
        def decode_reply(self, data: bytes) -> Any:
            raise kind

    conversation = session()
    conversation.post(Interrupted(), 0.0)
    send(conversation, A0, 0.0)
    with pytest.raises(kind):
        conversation.receive(realtime(), 0.1, 0.1)
