"""The rules for the outcomes of requests, judged by what the controller did and what was on the wire."""

from __future__ import annotations

from typing import Any

from fuzz.controller import Asked, ModelController
from fuzz.requests import Open
from fuzz.wire import Passage, Wire
from tracer_async.errors import (
    AmbiguousReplyError,
    EchoError,
    LinkLostError,
    LoadRefusedError,
    LoadUnknownError,
    ResponseTimeoutError,
    TracerError,
)
from tracer_async.protocol import Answer, CommandCode, Frame

__all__ = ["AnswerJudge"]

_READ = CommandCode.READ_REALTIME
_NEVER_EQUAL = frozenset((_READ, CommandCode.WRITE_SETTINGS))
"""Commands whose replies never look like their requests."""


class AnswerJudge:
    """Traces each frame to the request that it answers.

    Answers are judged for a controller and a wire as `tracer_async.protocol.exchange` describes them. Judging ends once
    something beyond that has come: `within_promise`.
    """

    def __init__(self, controller: ModelController, wire: Wire, *, timeout: float, fence: float, echoes: bool) -> None:
        self._controller = controller
        self._wire = wire
        self._timeout = timeout
        self._fence = fence
        self._echoes = echoes
        self.within_promise = True
        self.has_garbage = False
        # What the last frame was.
        self._passage: Passage | None = None
        # Of the request that was sent last: whether it was answered, when it was abandoned, and how many timeouts there
        # had been before it.
        self._settled = True
        self._abandoned_at: float | None = None
        self._timeouts = 0
        # A reading for which a copy was accepted as the answer.
        self._behind: Asked | None = None

    def sending(self, now: float, timeouts: int) -> None:
        """Judge that a request is sent."""
        asked = self._controller.asked
        if asked and not self._settled:
            free_from = asked[-1].at + self._timeout
            if self._abandoned_at is not None:
                free_from = min(free_from, self._abandoned_at)
            assert now >= free_from + self._fence - 1e-9, "sent while a request is in flight, or within its fence"
        if self._behind is not None and (self._controller.is_open(self._behind) or self._wire.is_open(self._behind)):
            # The documented limit for readings without pauses: a copy was taken for the answer to a reading, and the
            # line had no pause in which the extra reply is noticed.
            self.within_promise = False
        self._settled, self._abandoned_at = False, None
        self._timeouts = timeouts

    def abandoned(self, now: float) -> None:
        """Note that nobody waits for the request in flight any more."""
        if self._abandoned_at is None:
            self._abandoned_at = now

    def decoded(self, frame: Frame, timeouts: int) -> Asked | None:
        """Judge that a good frame has come through; return the reading that it is the reply to, if it is one."""
        passage = self._passage = self._wire.trace(frame)
        if passage is None or not passage.is_in_time:
            self.within_promise = False
        if not self._controller.asked:
            return None
        last = self._controller.asked[-1]
        is_echo = passage is not None and passage.is_echo
        # The echo of a command may be taken for an ambiguous answer, where a reply can look the same.
        if frame.command == last.frame.command and not (is_echo and frame.command in _NEVER_EQUAL):
            if passage is not None and not self._settled:
                self._check_in_time(passage, last, timeouts)
                if passage.is_copy and frame.command == _READ:
                    self._behind = last
            self._settled = True
        if frame.command != _READ or is_echo:
            return None
        return passage.asked if passage is not None and self.within_promise else last

    def _check_in_time(self, passage: Passage, last: Asked, timeouts: int) -> None:
        if (
            passage.asked is not last
            or passage.frame == last.frame
            or self.has_garbage
            or self._abandoned_at is not None
        ):
            return
        assert timeouts == self._timeouts or not passage.answers_in_time(last.at + self._timeout), (
            "timed out, and its reply had come in time"
        )

    def answered(self, entry: Open | None, answer: Answer[Any], now: float) -> None:
        """Judge an answer to a request; None is one of the session's own."""
        assert answer.since <= answer.received_at <= now
        passage, last = self._passage, self._controller.asked[-1]
        assert answer.frame.command == last.frame.command, "a reply to another command is taken for an answer"
        if not self.within_promise:
            return
        assert passage is not None
        assert answer.frame == passage.frame
        assert not passage.is_echo, "an echo is taken for an answer"
        asked = passage.asked
        assert answer.since <= asked.at, f"the answer to request {asked.number} is not reported to be so old"
        assert asked.done_at is not None
        assert answer.since <= asked.done_at <= answer.received_at
        assert answer.ambiguous or asked is last, "another request's reply is taken for an unambiguous answer"
        if entry is None or entry.is_reading:
            return
        if entry.load is not None:
            assert answer.value is entry.load
            assert self._controller.was_since(bool(entry.load), entry.posted_at), "the load was never switched"
        else:
            assert not answer.ambiguous, "an ambiguous reply makes a command succeed"
            assert asked in entry.sent, "a command succeeds by the reply to another one"

    def failed(self, entry: Open, error: TracerError) -> None:
        """Judge the error of a request."""
        match error:
            case AmbiguousReplyError():
                assert entry.load is None, "a switched load is not read back"
                assert not entry.is_reading, "an ambiguous reading is said to be older, it does not fail"
            case ResponseTimeoutError():
                assert error.unsent is None or error.unsent == entry.command.code
                if isinstance(error, EchoError) and self.within_promise:
                    assert self._echoes, "echoes on a line that has none"
            case LinkLostError():
                assert entry.sent, "a request that was never sent is not lost with the connection"
            case LoadUnknownError():
                assert error.sent == bool(entry.commands_sent)
            case LoadRefusedError():
                self._check_refusal(entry, error)

    def _check_refusal(self, entry: Open, error: LoadRefusedError) -> None:
        assert entry.load is not None
        assert error.reading.load_on != bool(entry.load)
        if self.within_promise:
            refusal = bytes((not entry.load,))
            assert any(asked.answer == refusal for asked in entry.commands_sent), "nobody has refused"
            assert self._controller.was_since(not entry.load, entry.posted_at), "refused, and it was followed"
