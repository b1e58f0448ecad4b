"""The error of a request without an answer says what was received instead."""

from __future__ import annotations

from typing import TypeGuard

import pytest

from tests.peer import SETTINGS, load, realtime
from tracer_async import (
    EchoError,
    LoadUnknownError,
    MalformedReplyError,
    ReadRealtime,
    ResponseTimeoutError,
    WriteSettings,
)
from tracer_async.protocol import Failed, Frame, LoadState, Session, SessionEvent, SessionOptions

READ = ReadRealtime()


def session(retries: int = 0) -> Session:
    made = Session(SessionOptions(name="tcp://bridge:8088", fence=0.0, retries=retries), 0.0)
    made.link_up(0.0)
    return made


def failure(events: list[SessionEvent]) -> ResponseTimeoutError:
    errors = [event.error for event in events if isinstance(event, Failed)]
    assert errors
    assert isinstance(errors[-1], ResponseTimeoutError)
    return errors[-1]


def failure_after(received: bytes) -> ResponseTimeoutError:
    tracer = session()
    tracer.post(READ, 0.0)
    assert tracer.data_to_send(0.0)
    tracer.receive(received, 0.1, 0.1)
    return failure(tracer.tick(2.5))


def test_the_error_says_that_nothing_was_received() -> None:
    error = failure_after(b"")
    assert (error.frames, error.damaged_frames, error.stray_bytes) == (0, 0, 0)
    assert "Nothing was received" in str(error)
    assert "powered" in str(error)


def test_garbage_is_not_reported_as_silence() -> None:
    error = failure_after(b"\x7f" * 1800)
    assert (error.frames, error.damaged_frames, error.stray_bytes) == (0, 0, 1800)
    assert "1,800 bytes came, none of them a frame: wrong baud rate, or an RS-232 adapter?" in str(error)
    assert "powered" not in str(error)


def test_one_received_byte_is_written_in_the_singular() -> None:
    assert "1 byte came, not a frame" in str(failure_after(b"\x00"))


def test_bytes_that_wait_for_the_rest_of_a_frame_are_counted() -> None:
    tracer = session()
    tracer.post(READ, 0.0)
    assert tracer.data_to_send(0.0)
    tracer.receive(load(1)[:-2], 0.9, 0.9)
    assert failure(tracer.tick(1.0)).stray_bytes == len(load(1)) - 2


def test_damaged_frames_and_noise_have_different_hints() -> None:
    reply = bytearray(realtime())
    reply[20] ^= 1
    error = failure_after(b"\0\0" + bytes(reply))
    assert (error.frames, error.damaged_frames, error.stray_bytes) == (0, 1, 2 + len(reply))
    assert f"{error.stray_bytes} bytes came, with 1 damaged frame and no good one" in str(error)


def test_frames_of_another_master_and_noise_have_different_hints() -> None:
    error = failure_after(load(1) + load(0))
    assert (error.frames, error.stray_bytes) == (2, 0)
    assert "2 frames came, but no answer" in str(error)


def test_an_echo_is_reported_as_an_echo() -> None:
    tracer = session()
    tracer.post(READ, 0.0)
    sent = tracer.data_to_send(0.0)
    tracer.receive(sent, 0.1, 0.1)
    error = failure(tracer.tick(1.0))
    assert type(error) is EchoError
    assert error.frames == 1
    assert "Only an echo" in str(error)


@pytest.mark.parametrize("other", ["damaged", "foreign"])
def test_more_than_an_echo_is_not_reported_as_only_an_echo(other: str) -> None:
    tracer = session()
    tracer.post(READ, 0.0)
    tracer.receive(tracer.data_to_send(0.0), 0.02, 0.02)
    damaged = bytearray(realtime())
    damaged[12] ^= 1
    tracer.receive(bytes(damaged) if other == "damaged" else load(1), 0.1, 0.1)
    error = failure(tracer.tick(2.0))
    assert type(error) is ResponseTimeoutError
    assert (error.frames, error.damaged_frames) == ((0, 1) if other == "damaged" else (1, 0))
    assert ("1 damaged frame" if other == "damaged" else "1 frame came, but no answer") in str(error)


def test_an_echo_of_the_command_is_not_counted_for_the_reading_after_it() -> None:
    tracer = session()
    tracer.switch_load(LoadState.ON, 0.0)
    assert tracer.data_to_send(0.0)
    tracer.receive(realtime(), 0.1, 0.1)
    command = tracer.data_to_send(0.4)
    tracer.receive(command + load(0), 0.5, 0.5)
    assert tracer.data_to_send(1.0)
    [error] = [event.error for event in tracer.tick(2.0) if isinstance(event, Failed)]
    assert type(error.__cause__) is ResponseTimeoutError
    assert "Nothing was received" in str(error)


def test_bytes_from_before_the_request_are_not_counted() -> None:
    tracer = session()
    damaged = load(1)[:-1] + b"\x00"
    tracer.receive(b"\x7f" * 500 + damaged + load(1), 0.1, 0.1)
    assert tracer.stats.corrupt_frames == 1
    tracer.post(READ, 5.0)
    assert tracer.data_to_send(5.0)
    error = failure(tracer.tick(6.0))
    assert (error.frames, error.damaged_frames, error.stray_bytes) == (0, 0, 0)


def test_all_attempts_of_a_request_count_together() -> None:
    tracer = session(retries=1)
    tracer.post(READ, 0.0)
    for now in (0.0, 4.0):
        assert tracer.data_to_send(now)
        tracer.receive(b"\x7f" * 10, now + 0.1, now + 0.1)
        events = tracer.tick(now + 2.0)
    assert failure(events).stray_bytes == 20


@pytest.mark.parametrize("switched", [False, True], ids=["settings", "load"])
def test_the_error_of_a_command_that_was_not_sent_says_what_came_instead_of_the_reading(switched: bool) -> None:
    tracer = session()
    if switched:
        tracer.switch_load(LoadState.ON, 0.0)
    else:
        tracer.post(WriteSettings(SETTINGS), 0.0)
    assert tracer.data_to_send(0.0)  # the reading that has to come first
    tracer.receive(b"\x7f" * 70, 0.1, 0.1)
    errors = [event.error for event in tracer.tick(2.0) if isinstance(event, Failed)]
    assert isinstance(errors[-1], LoadUnknownError if switched else ResponseTimeoutError)
    assert all(str(error).startswith("tcp://bridge:8088: ") for error in errors)
    assert "70 bytes came, none of them a frame" in str(errors[-1])


MALFORMED = Frame(0x00, 0xA0, realtime()[9:21] + b"\x07" + realtime()[22:33]).encode(start_up=False)
"""A reply to A0 whose state of the load is neither on nor off."""


def test_a_switch_that_was_not_sent_because_of_a_malformed_reply_says_so() -> None:
    tracer = session()
    tracer.switch_load(LoadState.ON, 0.0)
    assert tracer.data_to_send(0.0)
    [error] = [event.error for event in tracer.receive(MALFORMED, 0.1, 0.1) if is_command_failure(event)]
    assert isinstance(error, LoadUnknownError)
    assert not error.sent
    assert "cannot switch the load on: malformed reply to command A0: " in str(error)
    assert str(error).endswith("The command was not sent")
    assert "does not answer" not in str(error)


def test_settings_that_were_not_sent_because_of_a_malformed_reply_are_named() -> None:
    tracer = session()
    tracer.post(WriteSettings(SETTINGS), 0.0)
    assert tracer.data_to_send(0.0)
    reading = tracer.post(READ, 0.0, join=True)
    events = tracer.receive(MALFORMED, 0.1, 0.1)
    [unsent] = [event.error for event in events if is_command_failure(event)]
    [malformed] = [event.error for event in events if isinstance(event, Failed) and event.request is reading]
    assert isinstance(unsent, MalformedReplyError)
    assert isinstance(malformed, MalformedReplyError)
    assert (unsent.command, unsent.unsent, unsent.raw) == (0xA0, 0xAD, malformed.raw)
    assert str(unsent) == f"{malformed}. Command AD was not sent."
    assert malformed.unsent is None
    # Raising an exception adds a traceback to it, so two callers must not get the same one.
    assert unsent is not malformed
    assert unsent.__cause__ is malformed.__cause__


def is_command_failure(event: SessionEvent) -> TypeGuard[Failed]:
    return isinstance(event, Failed) and event.request.command != READ


def switch_after(answer: bytes, reading: bytes) -> LoadUnknownError:
    """Return the error of a switch to on, with these answers to the command and to the reading after it."""
    tracer = session()
    tracer.switch_load(LoadState.ON, 0.0)
    assert tracer.data_to_send(0.0)
    tracer.receive(realtime(), 0.1, 0.1)
    assert tracer.data_to_send(0.4)
    events = tracer.receive(answer, 0.5, 0.5) + tracer.tick(1.5)
    assert tracer.data_to_send(2.0)
    events += tracer.receive(reading, 2.1, 2.1) + tracer.tick(3.1)
    [error] = [event.error for event in events if isinstance(event, Failed)]
    assert isinstance(error, LoadUnknownError)
    assert error.sent
    return error


def test_an_answered_command_is_not_reported_as_unanswered() -> None:
    error = switch_after(load(0), b"")
    assert error.answered
    assert "the command was answered, but not the reading after it that verifies the state" in str(error)


def test_a_command_without_an_answer_is_reported_as_unanswered() -> None:
    error = switch_after(b"", b"")
    assert not error.answered
    assert "neither the command nor a reading after it got a certain answer" in str(error)


def test_a_command_with_an_ambiguous_answer_is_not_reported_as_answered() -> None:
    """The second copy of an echo may be the reply of a controller that repeats the ID of the request."""
    echo = Frame(0x16, 0xAA, b"\x01").encode(start_up=False)
    tracer = session()
    tracer.switch_load(LoadState.ON, 0.0)
    tracer.receive(tracer.data_to_send(0.0), 0.01, 0.01)  # an echo
    tracer.receive(realtime(), 0.1, 0.1)
    assert tracer.data_to_send(0.4)
    events = tracer.receive(echo + echo, 0.5, 0.5)
    assert tracer.data_to_send(2.0)
    events += tracer.tick(3.1)
    [error] = [event.error for event in events if isinstance(event, Failed)]
    assert isinstance(error, LoadUnknownError)
    assert not error.answered
    assert "neither the command nor a reading after it got a certain answer" in str(error)


def test_a_malformed_reading_after_a_switch_is_reported() -> None:
    error = switch_after(b"", MALFORMED)
    assert "could not be read back: malformed reply to command A0: " in str(error)
    assert str(error).endswith("It may be on or off")
