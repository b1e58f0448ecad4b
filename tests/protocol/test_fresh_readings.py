"""Requests for programs that share a controller: readings taken after a request, and commands with a time limit."""

from __future__ import annotations

from functools import partial

import pytest

from tests.promise.stamping_controller import frame, realtime
from tracer_async import LinkClosedError, LoadState, ManualControl, ReadRealtime
from tracer_async.protocol import DUPLICATE_WINDOW, Answered, Failed, Request, Session, SessionOptions

OPTIONS = SessionOptions(name="it", timeout=1.0, retries=1, fence=0.25)
READ, LOAD = 0xA0, 0xAA
ON = ManualControl(LoadState.ON)


class Line:
    """A session whose bytes the test sends and receives."""

    def __init__(self) -> None:
        self.now = 100.0
        self.session = Session(OPTIONS, self.now)
        self.session.frame_events = False
        self.session.link_up(self.now)
        self.numbers = 0

    def sent(self) -> int | None:
        """The command that is sent now."""
        data = self.session.data_to_send(self.now)
        return data[13] if data else None

    def wait_until_sent(self) -> int | None:
        when = self.session.deadline(self.now)
        assert when is not None
        self.now = max(self.now, when)
        return self.sent()

    def reply(self, command: int = READ, *, after: float = 0.05) -> list[Request]:
        """Let a reply arrive; return the requests that it answers."""
        self.now += after
        self.numbers += 1
        data = realtime(self.numbers) if command == READ else b"\x01"
        events = self.session.receive(frame(command, data), self.now, self.now)
        return [event.request for event in events if isinstance(event, Answered)]

    def command_behind_reading(self) -> tuple[Request, Request]:
        """Post a fresh reading, and a command that waits for it. Return both."""
        reading = self.session.post_fresh(self.now)
        command = self.session.post(ON, self.now)
        assert self.session.deadline(self.now) is not None  # now the command waits for the reading
        return reading, command


def test_a_fresh_reading_joins_one_that_was_never_sent_but_none_in_flight() -> None:
    line = Line()
    ordinary = line.session.post(ReadRealtime(), line.now)
    assert line.session.post_fresh(line.now) is ordinary
    assert line.sent() == READ
    fresh = line.session.post_fresh(line.now)
    assert fresh is not ordinary
    assert line.session.post_fresh(line.now) is fresh
    # An ordinary reading joins whatever comes first.
    assert line.session.post(ReadRealtime(), line.now, join=True) is ordinary
    assert line.reply() == [ordinary]
    assert line.wait_until_sent() == READ
    assert line.reply() == [fresh]


def test_a_fresh_reading_does_not_join_one_that_is_sent_again() -> None:
    line = Line()
    first = line.session.post_fresh(line.now)
    assert line.sent() == READ
    line.now += OPTIONS.timeout
    line.session.tick(line.now)
    later = line.session.post_fresh(line.now)
    assert later is not first
    assert line.wait_until_sent() == READ
    assert line.reply() == [first]


def test_a_fresh_reading_is_sent_when_no_copy_of_the_last_reply_can_come() -> None:
    line = Line()
    line.session.post_fresh(line.now)
    assert line.sent() == READ
    assert len(line.reply()) == 1
    answered = line.now
    line.session.post_fresh(line.now)
    assert line.sent() is None
    assert line.wait_until_sent() == READ
    assert line.now == pytest.approx(answered + DUPLICATE_WINDOW)


def test_the_late_reply_to_an_earlier_reading_does_not_answer_a_fresh_one() -> None:
    line = Line()
    line.session.cancel(line.session.post(ReadRealtime(), line.now), line.now)
    abandoned = line.session.post(ReadRealtime(), line.now)
    assert line.sent() == READ
    line.session.cancel(abandoned, line.now)
    line.now += OPTIONS.fence
    fresh = line.session.post_fresh(line.now)
    assert line.wait_until_sent() == READ
    assert line.reply() == []
    assert line.wait_until_sent() == READ
    assert line.reply() == [fresh]


def test_a_fresh_reading_that_a_command_uses_stays_fresh_after_the_connection_is_lost() -> None:
    line = Line()
    fresh = line.session.post_fresh(line.now)
    line.session.post(ON, line.now)
    assert line.sent() == READ
    line.session.link_down(line.now, None)
    line.now += 0.1
    line.session.link_up(line.now)
    assert fresh.measured_after is not None


def test_a_withdrawn_request_is_not_sent_unless_it_is_in_flight() -> None:
    line = Line()
    first = line.session.post_fresh(line.now)
    assert line.sent() == READ
    second = line.session.post_fresh(line.now)
    line.session.withdraw(first)
    line.session.withdraw(second)
    assert line.reply() == [first]
    line.now += 1.0
    assert line.sent() is None
    assert line.session.deadline(line.now) is None


def test_a_withdrawn_reading_is_sent_if_a_command_needs_it() -> None:
    line = Line()
    reading, command = line.command_behind_reading()
    line.session.withdraw(reading)
    assert line.sent() == READ
    assert line.reply() == [reading]
    assert line.wait_until_sent() == LOAD
    assert line.reply(LOAD) == [command]


def give_up_by(how: str, line: Line, request: Request) -> None:
    if how == "withdraw":
        line.session.withdraw(request)
    else:
        assert not line.session.cancel(request, line.now)


GIVE_UP = pytest.mark.parametrize("how", ["withdraw", "cancel"])


@GIVE_UP
def test_a_reading_that_only_a_command_needs_is_not_sent_without_the_command(how: str) -> None:
    line = Line()
    reading, command = line.command_behind_reading()
    give_up_by(how, line, reading)
    give_up_by(how, line, command)
    assert line.sent() is None
    assert line.session.is_idle()


@GIVE_UP
def test_a_command_does_not_wait_for_a_reading_that_was_given_up(how: str) -> None:
    line = Line()
    reading, command = line.command_behind_reading()
    give_up_by(how, line, command)
    give_up_by(how, line, reading)
    assert line.session.is_idle()
    command = line.session.post(ON, line.now)
    assert line.wait_until_sent() == READ
    assert reading not in line.reply()
    assert line.wait_until_sent() == LOAD
    assert line.reply(LOAD) == [command]


@pytest.mark.parametrize("fresh", [False, True])
def test_a_reading_for_a_command_is_kept_for_a_caller_that_has_joined_it(fresh: bool) -> None:
    line = Line()
    command = line.session.post(ON, line.now)
    assert line.session.deadline(line.now) is not None  # the command now waits for a reading
    post = line.session.post_fresh if fresh else partial(line.session.post, ReadRealtime(), join=True)
    reading = post(line.now)
    line.session.cancel(command, line.now)
    assert line.sent() == READ
    assert line.reply() == [reading]


def test_a_caller_that_has_joined_the_reading_for_a_command_waits_for_the_next_connection() -> None:
    line = Line()
    line.session.post(ON, line.now)
    assert line.session.deadline(line.now) is not None  # the command now waits for a reading
    reading = line.session.post_fresh(line.now)
    assert line.session.link_down(line.now, None) == []
    line.now += OPTIONS.link_timeout
    assert reading in {event.request for event in line.session.tick(line.now) if isinstance(event, Failed)}


def test_a_fresh_reading_is_repeated_and_then_fails() -> None:
    line = Line()
    reading = line.session.post_fresh(line.now)
    for events in ([], [reading]):
        assert line.wait_until_sent() == READ
        line.now += OPTIONS.timeout
        assert [event.request for event in line.session.tick(line.now) if isinstance(event, Failed)] == events


def test_a_fresh_reading_without_a_connection_fails_after_the_link_timeout() -> None:
    line = Line()
    assert line.session.link_down(line.now, None) == []
    line.now += 100.0
    reading = line.session.post_fresh(line.now)
    line.now += OPTIONS.link_timeout
    assert line.session.deadline(line.now) == line.now
    [event] = line.session.tick(line.now)
    assert isinstance(event, Failed)
    assert event.request is reading


@pytest.mark.parametrize(("left", "sent"), [(0.0, LOAD), (-0.001, None)], ids=["at the last moment", "too late"])
def test_a_command_is_not_sent_after_its_time(left: float, sent: int | None) -> None:
    line = Line()
    line.session.post(ReadRealtime(), line.now)
    assert line.sent() == READ
    line.reply()
    line.now += DUPLICATE_WINDOW
    command = line.session.post(ON, line.now, send_by=line.now + left)
    assert line.sent() == sent
    assert line.session.is_idle() is (sent is None)
    line.session.withdraw(command)


def test_the_request_after_one_that_was_too_late_is_sent() -> None:
    line = Line()
    line.session.post(ON, line.now, send_by=line.now - 0.1)
    line.session.post(ON, line.now, send_by=line.now - 0.1)
    line.session.post(ReadRealtime(), line.now)
    assert line.sent() == READ


def test_a_closed_session_takes_no_fresh_reading() -> None:
    line = Line()
    line.session.close(line.now)
    with pytest.raises(LinkClosedError):
        line.session.post_fresh(line.now)
