"""Lets the threads of a program use one conversation, and repairs it after an interrupt.

Two rules:

1. One thread at a time has the turn, from the begin of its call until the outcome is known.
2. An exception can come between any two operations: Ctrl-C raises KeyboardInterrupt. After an interrupt in a wait, the
   request is cancelled. After one elsewhere nothing is known about link and session, so both are given up. That happens
   at once; if it is interrupted too, at the begin of the next call.

A signal handler may close the driver between any two operations of a call. It only rings the bell: the call still uses
the link, and closes it at its end.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from operator import add, sub
from threading import RLock, get_ident
from typing import Any

from tracer_async.client._recording import LineRecorder
from tracer_async.client._results import is_recent, twin
from tracer_async.client._retrying import Retrying
from tracer_async.client._status import ConnectionState
from tracer_async.client._trace import Trace
from tracer_async.errors import LinkClosedError, LinkTimeoutError, TracerError
from tracer_async.protocol import (
    Answer,
    Command,
    Frame,
    LoadState,
    ReadRealtime,
    RealtimeData,
    Request,
    SessionOptions,
    SessionStats,
)
from tracer_async.sync._bell import Bell
from tracer_async.sync._conversation import Conversation
from tracer_async.sync._opening import Opener

__all__ = ["Driver"]

_READ = ReadRealtime()

_Outcome = Answer[Any] | TracerError


class Driver:
    """The blocking driver of one session, for any number of threads."""

    def __init__(
        self,
        options: SessionOptions,
        opener: Opener,
        backoff: tuple[float, float],
        recorder: LineRecorder | None = None,
    ) -> None:
        self._options = options
        self._process = os.getpid()
        self._opener = opener
        self._retrying = Retrying(options.name, backoff, _log_failed)
        self._bell = Bell()
        self._recorder = recorder
        self._trace = Trace(options.name, recorder)
        self._trace.begin(time.monotonic(), options.timeout)
        # The turn, and the right to be the next. With one lock, a thread that calls in a loop would get it again and
        # again. Both are RLocks: a thread can try to release them without knowing whether it has acquired them.
        self._turn, self._next = RLock(), RLock()
        # Whether a call has the turn. If a call finds it set, the call before was interrupted.
        self._calling = False
        # The thread that has the turn.
        self._thread = 0
        self._asked = 0.0
        self._conversation = self._new_conversation()
        # The counters of the conversations that were given up.
        self._stats_before = SessionStats(*[0] * len(SessionStats._fields))
        # The last failure of a reading, and its time.
        self._failure: tuple[float, TracerError] | None = None

    def _new_conversation(self) -> Conversation:
        return Conversation(self._options, self._opener, self._retrying, self._bell, self._trace)

    @property
    def state(self) -> ConnectionState:
        """The state of the link, as the last call has left it."""
        return ConnectionState.CLOSED if self._bell.is_rung else self._conversation.state

    @property
    def stats(self) -> SessionStats:
        """The counters of all sessions."""
        return SessionStats(*map(add, self._stats_before, self._conversation.session.stats))

    def recent_reading(self, max_age: float) -> RealtimeData | None:
        """Return the last reading if it is at most *max_age* seconds old and no command was sent after it."""
        if os.getpid() != self._process:
            return None
        conversation = self._conversation
        last, commanded = conversation.last, conversation.session.last_command_sent
        if last is None or not is_recent(last.since, time.monotonic(), max_age, commanded) or conversation.suspended:
            return None
        return last.value

    # Calls.

    def connect(self) -> None:
        """Open the link. Raises a `LinkError`."""
        self._in_turn(time.monotonic(), lambda: self._conversation.connect(self._options.link_timeout))

    def ask(self, command: Command[Any]) -> Answer[Any]:
        """Send a request and return its answer. Raises the error that the session gives the request."""
        asked = time.monotonic()
        if type(command) is not ReadRealtime:
            # Checked before the turn, because an error in the turn gives up the link. Raises what the command raises.
            Frame(self._options.controller_id, command.code, command.to_bytes()).encode()
            return _result(self._in_turn(asked, lambda: self._perform(self._conversation.session.post, command)))
        outcome = self._in_turn(asked, self._read)
        if isinstance(outcome, Answer):
            return outcome
        self._failure = (time.monotonic(), outcome)
        raise outcome

    def switch_load(self, load: LoadState) -> None:
        """Switch the load. Return when its state is known to be *load*. Raises the errors of `ask`, and `LoadError`."""
        asked = time.monotonic()
        _result(self._in_turn(asked, lambda: self._perform(self._conversation.session.switch_load, load)))

    def close(self) -> None:
        """Fail the calls of all threads, close the link and the recorder. May be called again.

        In a signal handler that has interrupted a call, the link is closed at the end of that call. In a forked process
        it does nothing: the link is that of the parent, and another thread may have had the turn.
        """
        if os.getpid() != self._process:
            return
        self._bell.ring()
        thread = get_ident()
        if self._thread == thread:
            return
        try:
            self._turn.acquire()
            self._thread = thread
            self._conversation.close(discard=self._calling)
            self._bell.close()
            self._close_recorder()
        finally:
            # The first operations of this block, so that no interrupt can come before them.
            try:  # not suppress(), in which an interrupt could come
                if self._thread == thread:
                    self._thread = 0
                self._turn.release()
            except RuntimeError:  # interrupted before it was acquired
                pass

    def _close_recorder(self) -> None:
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            recorder.end()
            recorder.close()

    def _perform(self, post: Callable[[Any, float], Request], what: Any) -> _Outcome:
        return self._conversation.perform(post(what, self._asked))

    def _read(self) -> _Outcome:
        """Read. If another thread's reading ended while this thread waited for its turn, return the outcome of that."""
        asked, conversation = self._asked, self._conversation
        last, failure, session = conversation.last, self._failure, conversation.session
        if (
            last is not None
            and last.received_at >= asked
            and last.since >= session.last_command_sent
            and not conversation.suspended
        ):
            return last
        if failure is not None and failure[0] >= asked:
            return twin(failure[1])
        return conversation.perform(session.post(_READ, asked))

    # The turn.

    def _in_turn(self, asked: float, call: Callable[[], Any]) -> Any:
        """Call *call* when no other thread has the turn. Raises LinkTimeoutError if it takes too long, LinkClosedError.

        An exception that *call* raises is an interrupt, or a failed attempt to connect in `connect`.

        Raises RuntimeError in a forked process: both processes would read the replies of one connection.
        """
        if os.getpid() != self._process:
            raise RuntimeError(
                f"{self._options.name}: this client belongs to another process. Open a new client after the fork"
            )
        thread = get_ident()
        try:
            self._take_turn(asked)
            self._thread = thread
            if self._bell.is_rung:
                raise LinkClosedError(self._options.name, "the client is closed")
            if self._calling:
                self._repair()
            self._asked = asked
            self._calling = True
            try:
                result = call()
            except BaseException:
                self._repair()
                raise
            self._calling = False
            return result
        finally:
            try:  # as in `close`
                if self._thread == thread:
                    self._thread = 0
                self._turn.release()
            except RuntimeError:
                pass
            if self._bell.is_rung:
                self.close()  # what a signal handler has left to this call

    def _take_turn(self, asked: float) -> None:
        try:
            # Nearly always both are free. An attempt without a time takes half as long.
            if not self._next.acquire(blocking=False):
                self._wait_for(self._next, asked)
            if not self._turn.acquire(blocking=False):
                self._wait_for(self._turn, asked)
        finally:
            try:  # noqa: SIM105  # as in `close`
                self._next.release()
            except RuntimeError:
                pass

    def _wait_for(self, lock: RLock, asked: float) -> None:
        limit = self._options.link_timeout
        if not lock.acquire(timeout=max(0.0, asked + limit - time.monotonic())):
            raise LinkTimeoutError(self._options.name, f"other threads have used the connection for {limit:g} s")

    def _repair(self) -> None:
        """End a call that was interrupted."""
        before = self._conversation
        if before.waiting:
            before.waiting = False
            before.forsake()
        else:
            before.close(discard=True)
            conversation = self._new_conversation()
            conversation.succeed(before, self._asked)
            stats = map(sub, map(add, self._stats_before, before.session.stats), conversation.session.stats)
            self._stats_before, self._conversation = SessionStats(*stats), conversation
        self._calling = False


def _result(outcome: _Outcome) -> Answer[Any]:
    if isinstance(outcome, TracerError):
        raise outcome
    return outcome


def _log_failed(error: Exception) -> None:
    traceback.print_exception(error)
