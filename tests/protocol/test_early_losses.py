"""Requests on connections that end before the request can be sent. No request waits forever."""

from __future__ import annotations

from typing import Any

import pytest

from tests.peer import SETTINGS, load, realtime
from tracer_async import LinkLostError, LinkTimeoutError, LoadState, LoadUnknownError, TracerError
from tracer_async.protocol import (
    SYNC,
    Answered,
    Command,
    Failed,
    ManualControl,
    ReadRealtime,
    Request,
    Session,
    SessionEvent,
    SessionOptions,
    WriteSettings,
)

BACK_AFTER = 0.4
"""Seconds from a loss to the next connection: the delay after a good frame."""


class Line:
    """A session in virtual time, and a bridge that closes its connections early."""

    def __init__(self, retries: int = 2) -> None:
        self.now = 0.0
        self.session = Session(SessionOptions(name="tcp://bridge:8088", retries=retries, start_up=False), 0.0)
        self.events: list[SessionEvent] = []
        self.connections = 0

    def connect(self) -> None:
        self.connections += 1
        self.session.link_up(self.now)

    def send(self, within: float) -> int | None:
        """Let time pass until a request is sent. Return its command byte, None if none is sent in that time."""
        end = self.now + within
        while not (data := self.session.data_to_send(self.now)):
            due = self.session.deadline(self.now)
            if due is None or due > end:
                self.now = end
                return None
            self.now = max(due, self.now + 1e-6)
            self.events += self.session.tick(self.now)
        return data[len(SYNC) + 1]

    def reply(self, data: bytes) -> None:
        self.now += 0.06
        self.events += self.session.receive(data, self.now, self.now)

    def lose(self, cause: Exception | None = None) -> None:
        """Lose the connection and wait until the next one can come."""
        self.events += self.session.link_down(self.now, cause)
        assert self.send(BACK_AFTER) is None

    def hang_up_after_each_reply(self, request: Request, within: float) -> TracerError | Any:
        """Connect again and again, and lose each connection after a reading. Return the outcome of *request*."""
        while (outcome := self.outcome(request)) is None:
            self.connect()
            assert self.send(within) == 0xA0
            self.reply(realtime())
            self.lose()
            assert self.connections < 20
        return outcome

    def outcome(self, request: Request) -> TracerError | Any:
        found = [event for event in self.events if getattr(event, "request", None) is request]
        if not found:
            return None
        [event] = found
        assert isinstance(event, Answered | Failed)
        if isinstance(event, Answered):
            return event.answer.value
        assert str(event.error).startswith("tcp://bridge:8088: ")
        return event.error


def ask(line: Line, what: str) -> Request:
    session = line.session
    if what == "switch":
        return session.switch_load(LoadState.ON, line.now)
    commands: dict[str, Command[Any]]
    commands = {"settings": WriteSettings(SETTINGS), "execute": ManualControl(LoadState.ON), "read": ReadRealtime()}
    return session.post(commands[what], line.now)


COMMANDS = ["switch", "settings", "execute"]


@pytest.mark.parametrize("what", COMMANDS)
@pytest.mark.parametrize("retries", [0, 2])
def test_a_command_ends_if_the_bridge_hangs_up_after_each_reply(what: str, retries: int) -> None:
    line = Line(retries)
    request = ask(line, what)
    error = line.hang_up_after_each_reply(request, 0.01)
    assert type(error) is LinkTimeoutError
    assert line.connections == retries + 1
    lost = "a connection was" if retries == 0 else "3 connections were"
    advice = "does the bridge close connections early?"
    assert str(error) == f"tcp://bridge:8088: {lost} lost before the request could be sent ({advice})"
    assert line.session.deadline(line.now) is None


def test_the_error_says_that_the_request_was_sent_before() -> None:
    line = Line(retries=1)
    request = ask(line, "read")
    line.connect()
    assert line.send(0.01) == 0xA0
    line.lose()
    while line.outcome(request) is None:
        line.connect()
        line.lose()
    assert "2 connections were lost before the request could be sent again (does" in str(line.outcome(request))


def test_the_error_names_why_the_connection_was_lost() -> None:
    line = Line(retries=0)
    request = ask(line, "settings")
    line.connect()
    cause = OSError("reset")
    line.lose(cause)
    error = line.outcome(request)
    assert str(error).endswith("; last error: reset")
    assert error.__cause__ is cause


@pytest.mark.parametrize("what", COMMANDS)
def test_a_command_ends_if_the_bridge_hangs_up_before_each_reply(what: str) -> None:
    line = Line()
    request = ask(line, what)
    while line.outcome(request) is None:
        line.connect()
        line.send(0.2)
        line.lose()
        assert line.connections < 20
    assert type(line.outcome(request)) is LinkTimeoutError


def test_a_reading_ends_if_each_connection_begins_with_half_a_reply_and_ends_early() -> None:
    """After half a reply no request is sent for 0.25 s. The bridge closes each connection earlier."""
    line = Line()
    request = ask(line, "read")
    while line.outcome(request) is None:
        line.connect()
        line.reply(SYNC + b"\x00\xa0\x18")
        assert line.send(0.1) is None
        line.lose()
        assert line.connections < 20
    assert type(line.outcome(request)) is LinkTimeoutError


def test_requests_that_wait_behind_a_command_end_too() -> None:
    line = Line()
    requests = [ask(line, what) for what in (*COMMANDS, "read", "read")]
    while line.session.deadline(line.now) is not None:
        line.connect()
        if line.send(0.01) is not None:
            line.reply(realtime())
        line.lose()
        assert line.connections < 20
    outcomes = [type(line.outcome(request)).__name__ for request in requests]
    assert outcomes[:3] == ["LinkTimeoutError"] * 3
    assert outcomes[3:] == ["RealtimeData"] * 2


def test_a_connection_from_before_the_request_does_not_count() -> None:
    """It may have been dead when the request was posted."""
    line = Line(retries=0)
    line.connect()
    line.now = 60.0
    request = ask(line, "settings")
    line.lose()
    assert line.outcome(request) is None
    line.connect()
    assert line.send(0.01) == 0xA0
    line.reply(realtime())
    assert line.send(0.3) == 0xAD


def test_a_connection_on_which_a_request_was_sent_does_not_count() -> None:
    line = Line(retries=1)
    line.connect()
    request = ask(line, "read")
    for _ in range(2):
        assert line.outcome(request) is None
        assert line.send(2.0) == 0xA0
        line.lose()
        line.connect()
    assert type(line.outcome(request)) is LinkLostError


def test_a_switch_whose_command_cannot_be_repeated_ends_with_the_last_reading() -> None:
    """The command was sent once, so it is unknown whether the controller received it."""
    line = Line()
    line.connect()
    request = ask(line, "switch")
    assert line.send(0.01) == 0xA0
    line.reply(realtime())
    assert line.send(0.3) == 0xAA
    line.lose()
    error = line.hang_up_after_each_reply(request, 1.0)
    assert type(error) is LoadUnknownError
    assert error.sent
    assert error.reading is not None
    assert type(error.__cause__) is LinkTimeoutError
    assert "The command could not be sent again: 3 connections were lost" in str(error)


def test_a_switch_that_cannot_be_verified_ends_without_a_reading() -> None:
    line = Line()
    line.connect()
    request = ask(line, "switch")
    assert line.send(0.01) == 0xA0
    line.reply(realtime())
    assert line.send(0.3) == 0xAA
    line.reply(load(0))
    line.lose()
    while line.outcome(request) is None:
        line.connect()
        line.reply(realtime())  # an unsolicited one: no request is sent for 0.25 s after it
        line.lose()
        assert line.connections < 20
    error = line.outcome(request)
    assert type(error) is LoadUnknownError
    assert error.sent
    assert error.answered
    assert error.reading is None
    assert "the state could not be read back: 3 connections were lost before the request could be sent" in str(error)


def test_a_lost_request_says_how_often_it_was_sent() -> None:
    line = Line(retries=1)
    request = ask(line, "read")
    for _ in range(2):
        line.connect()
        assert line.send(1.0) == 0xA0
        line.lose()
    assert "before the reply to command A0 came, sent 2 times. " in str(line.outcome(request))


@pytest.mark.parametrize(("what", "command"), [("read", "A0"), ("settings", "AD")])
def test_a_lost_request_says_what_may_have_happened(what: str, command: str) -> None:
    line = Line(retries=0)
    request = ask(line, what)
    line.connect()
    if what == "settings":
        assert line.send(0.01) == 0xA0
        line.reply(realtime())
    assert line.send(0.3) == int(command, 16)
    line.lose(OSError("reset"))
    error = line.outcome(request)
    assert type(error) is LinkLostError
    assert f"connection lost before the reply to command {command} came, sent once (reset)" in str(error)
    assert ("may have been executed or not" in str(error)) is (what == "settings")
    assert ("Is another program connected to the same bridge?" in str(error)) is (what == "read")
