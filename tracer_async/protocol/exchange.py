"""Which reply answers which request. Time is an argument, in seconds on any steady clock.

The protocol has no transaction ID, so a late reply looks like an answer. Two facts can be relied on: a controller
answers each request at most once and in order, and a reply repeats the command byte of its request. The rules:

1. A request that is abandoned (timeout, cancellation, lost connection) stays *unanswered*. No other request is sent
   until its reply has come and was discarded, or until the fence has passed.
2. A reply with another command byte than the request in flight never answers it.
3. A reply settles every unanswered request that was sent before the one it answers, because replies keep their order.
4. A reply that comes after its fence can be mistaken for the answer to a later request with the same command. Nothing
   on the wire tells them apart. For `LATE_REPLY_WINDOW` seconds such an answer is *ambiguous*, and `Exchange.since`
   tells how old it may be.
5. Some bridges deliver a reply twice. A reply that comes within `DUPLICATE_WINDOW` seconds after another one with the
   same command may be its copy: it is ambiguous too, and settles nothing.
6. A reading that a copy may have answered may still get its own reply, which then answers the next reading, and so on.
   `since` does not cover that: on a quick line nearly every reading would be old. `Exchange.certain_since` does. It is
   used for what must be certain: that a command is clear, that a load is switched.
7. A frame that equals a request that was sent is its echo, not an answer. See `_EchoFilter`.
8. A late reply crosses connections and processes. A command that changes something is sent only when its reply cannot
   be confused with an earlier one's. See `Exchange.clear_from`.

A frame is received at some moment between `not_before`, when the input was last known to be empty, and `now`. Windows
are judged by `not_before`, so that an application that was busy for seconds cannot make a copy look like an answer.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from tracer_async.protocol.frame import CommandCode, Frame

__all__ = ["DUPLICATE_WINDOW", "DUPLICATING_LINE_PERIOD", "LATE_REPLY_WINDOW", "Exchange", "Match"]

LATE_REPLY_WINDOW = 10.0
"""Seconds after which a reply that has not come is assumed never to come."""

DUPLICATE_WINDOW = 0.25
"""Seconds within which a copy of a reply may follow it."""

DUPLICATING_LINE_PERIOD = 60.0
"""Seconds for which a line counts as one that duplicates replies, after an unsolicited reply was seen on it."""

# A line that never answers must not fill the memory.
_MAX_UNANSWERED = 64
_MAX_SENT_FRAMES = 16

# Seconds within which replies to the same command are remembered as one: less than a reply takes at 9600 baud.
_TOGETHER = 0.01

_READ_REALTIME = int(CommandCode.READ_REALTIME)
# Their replies differ from their requests in length (protocol document), so an equal frame can only be an echo.
_NEVER_EQUAL = frozenset((int(CommandCode.READ_REALTIME), int(CommandCode.WRITE_SETTINGS)))


class Match(Enum):
    """What a received frame is."""

    ANSWER = auto()
    """The answer to the request in flight."""
    LATE = auto()
    """The reply to a request that was abandoned."""
    UNSOLICITED = auto()
    """No request's reply: a duplicate, or a reply to another master on the line."""
    ECHO = auto()
    """One of our own requests that came back."""


# Accessing a member through its class takes as long as much of the other work for an answer (Python 3.11).
_ANSWER, _LATE, _UNSOLICITED, _ECHO = Match


class _Unanswered(NamedTuple):
    command: int
    sent: float
    forget_at: float


class _Reply:
    """A reply that may come again; or several to the same command, received within `_TOGETHER`."""

    __slots__ = ("command", "copies_until", "received", "sent")

    def __init__(self, command: int, sent: float, received: float) -> None:
        self.command = command
        self.sent = sent
        """When the request of the first one was sent."""
        self.received = received
        """When the first one was received."""
        self.copies_until = received + DUPLICATE_WINDOW


class Exchange:
    """One request in flight, and the replies that may still come to the requests before it."""

    __slots__ = (
        "_behind",
        "_clear_from",
        "_connected_at",
        "_duplicating_until",
        "_echoes",
        "_fence",
        "_frame",
        "_others_clear_from",
        "_replies",
        "_sent",
        "_to_settle",
        "_unanswered",
        "_unsettled",
        "_unsolicited_limit",
        "ambiguous",
        "certain_since",
        "deadline",
        "free_at",
        "since",
    )

    def __init__(self, fence: float) -> None:
        self._fence = fence
        # The request in flight, and when it was sent.
        self._frame: Frame | None = None
        self._sent = 0.0
        # Both oldest first.
        self._unanswered: list[_Unanswered] = []
        self._replies: list[_Reply] = []
        self._duplicating_until = 0.0
        # Latest time until which unsolicited replies may delay the next request; 0 while none came after a request.
        self._unsolicited_limit = 0.0
        self._echoes = _EchoFilter()
        # For rule 8, see `clear_from`: from when on commands are clear on this connection (those that were sent on it,
        # each from a time of its own), and since when each command has been unsettled.
        self._connected_at = 0.0
        self._others_clear_from: float | None = None
        self._clear_from: dict[int, float] = {}
        self._unsettled: dict[int, float] = {}
        # When the last reading was sent whose own reply may still come, because a copy may have answered it.
        self._behind: float | None = None
        # Whether the next answer to a reading settles anything: on a healthy line only the first one does.
        self._to_settle = True
        self.free_at: float = 0.0
        """Before this time nothing may be sent; may lie in the past."""
        self.deadline: float | None = None
        """When the request in flight times out; None while there is none."""
        self.since: float = 0.0
        """When the oldest request was sent that the last answer may belong to."""
        self.certain_since: float = 0.0
        """As `since` for the last reading, also if each answer is the reply to the reading before it: rule 6."""
        self.ambiguous: bool = False
        """Whether the last answer may belong to another request than the one in flight, or be its echo."""

    def connect(self, now: float) -> None:
        """Begin a new connection. Requests that are unanswered stay so: a late reply can cross connections."""
        self._connected_at = now
        self._others_clear_from = None
        self._clear_from.clear()
        self._unsettled.clear()
        self._to_settle = True
        self._echoes.connect()

    @property
    def in_flight(self) -> bool:
        """Whether a request waits for its answer."""
        return self._frame is not None

    def start(self, frame: Frame, now: float, timeout: float) -> None:
        """Note that a request is sent. Raises RuntimeError if a request is in flight, or before `free_at`."""
        if self._frame is not None or now < self.free_at:
            raise RuntimeError("a request is in flight, or the fence is up")
        self._frame = frame
        self._sent = now
        self._unsolicited_limit = 0.0
        self._echoes.sent(frame, now)
        if frame.command != _READ_REALTIME:
            self._unsettled[frame.command] = now
            self._to_settle = True
            self._clear_from.pop(frame.command, None)
        self.deadline = now + timeout

    def abandon(self, now: float) -> None:
        """Stop waiting for the request in flight, if there is one. From now on it is unanswered."""
        if self._frame is not None:
            self._keep_unanswered(self._frame.command, now)
            copies_until = self._replies[-1].copies_until if self._replies else 0.0
            self.free_at = max(self.free_at, now + self._fence, copies_until)
            self._frame = self.deadline = None

    def receive(self, frame: Frame, now: float, not_before: float) -> Match:
        """Tell what a good frame is; for an answer, set `since` and `ambiguous`."""
        command = frame.command
        if self._unanswered:
            self._forget(not_before)
        original = self._original(command, not_before)
        request = self._frame
        may_be_echo = False
        echoes = self._echoes
        # Comparing lengths is quicker than the hash of a frame: most replies are longer than any request.
        if len(frame.data) <= echoes.longest and frame in echoes.requests:
            verdict = echoes.judge(frame, not_before)
            if verdict is _Echo.YES:
                return _ECHO
            may_be_echo = verdict is _Echo.PERHAPS
        if request is None or command != request.command:
            # What may be an echo settles nothing: the reply may still come.
            return _ECHO if may_be_echo else self._receive_other(command, now, original)
        older = None
        if self._unanswered:
            older = self._oldest(command) if may_be_echo else self._settle(command)
        since = self._sent if older is None else older.sent
        reading = command == _READ_REALTIME
        may_be_copy = original is not None and not reading
        behind = self._behind if reading else None
        if behind is not None and not_before >= behind + LATE_REPLY_WINDOW:
            behind = None
        if older is not None or may_be_echo or may_be_copy:
            # Either this is the older request's reply, an echo or a copy, and ours will still come, or the older one's
            # never comes. Readings are taken one after the other: there a copy is far more rare than an answer.
            self._keep_unanswered(command, now)
        elif self._unanswered:
            self._unanswered = [] if behind is None else [older for older in self._unanswered if older.sent > behind]
        if original is not None and original.sent < since:
            since = original.sent
        self.since = since
        self.ambiguous = may_be_echo or older is not None or original is not None
        if reading:
            self.certain_since = since if behind is None or since < behind else behind
            self._behind = None if behind is None and original is None else self._sent
            if self._to_settle:
                self._reading_answered(now, copies_id=frame.controller_id == request.controller_id)
        elif not self.ambiguous:
            self._behind = None
        self._frame = self.deadline = None
        self._may_come_again(command, self._sent, now)
        self.free_at = self._pause(now)
        return _ANSWER

    def _receive_other(self, command: int, now: float, original: _Reply | None) -> Match:
        """Tell what a reply is that does not answer the request in flight."""
        if original is not None:
            # The same reply once more, or the late one: which of them is unknown, so nothing is settled.
            self._delay_after_unsolicited(now)
            return _LATE if self._oldest(command) is not None else _UNSOLICITED
        older = self._settle(command)
        if older is None:
            if command == _READ_REALTIME:
                self._behind = None  # here is the reply that was missing
            self._delay_after_unsolicited(now)
            return _UNSOLICITED
        self._may_come_again(command, older.sent, now)
        pause = self._pause(now)
        self.free_at = max(self.free_at, pause) if self._unanswered else pause
        return _LATE

    # When a command is clear: rule 8.

    def clear_from(self, command: int | None) -> float | None:
        """Return the time from which on a reply to *command* can only be its own; None: a reading must come first.

        A late reply crosses connections and processes. So before the first command on a connection, and between two
        equal commands, stands a reading that was sent and answered on this connection (which settles every request
        before it), and then the duplicate window. None as *command* asks for the first of the two conditions only.
        """
        if command in self._unsettled:
            return None
        if command is None:
            return self._others_clear_from
        return self._clear_from.get(command, self._others_clear_from)

    def copies_until(self, command: int) -> float:
        """Return until when a copy of an earlier reply to *command* may come; may lie in the past."""
        return max((reply.copies_until for reply in self._replies if reply.command == command), default=0.0)

    def has_unanswered_command(self, now: float) -> bool:
        """Whether a command other than a reading was sent and may still be carried out: nobody knows its outcome."""
        self._forget(now)
        if self._frame is not None and self._frame.command != _READ_REALTIME:
            return True
        return any(unanswered.command != _READ_REALTIME for unanswered in self._unanswered)

    def _reading_answered(self, now: float, *, copies_id: bool) -> None:
        self._echoes.reading_answered(copies_id=copies_id)
        if self.certain_since < self._connected_at:
            return
        if self._others_clear_from is None:
            self._others_clear_from = now + DUPLICATE_WINDOW
        if self._unsettled:
            for command in [command for command, sent in self._unsettled.items() if self.certain_since >= sent]:
                del self._unsettled[command]
                self._clear_from[command] = now + DUPLICATE_WINDOW
        self._to_settle = bool(self._unsettled) or not self._echoes.known

    # Pauses.

    def _delay_after_unsolicited(self, now: float) -> None:
        self._duplicating_until = now + DUPLICATING_LINE_PERIOD
        # It may come again, unless it is too late to be a reply to a request of ours. A stream of another master's
        # replies must not delay requests forever: there is time for one reply after another, and their copies.
        if now < self._sent + LATE_REPLY_WINDOW + DUPLICATE_WINDOW:
            if not self._unsolicited_limit:
                self._unsolicited_limit = now + 2 * DUPLICATE_WINDOW
            self.free_at = max(self.free_at, min(now + DUPLICATE_WINDOW, self._unsolicited_limit))

    def _pause(self, now: float) -> float:
        """Return when the next request may be sent: on a doubtful line, after the duplicate window of this reply."""
        return now + DUPLICATE_WINDOW if self._unanswered or now < self._duplicating_until else now

    # Unanswered requests, and replies that may come again.

    def _may_come_again(self, command: int, sent: float, now: float) -> None:
        replies = self._replies
        if replies:
            last = replies[-1]
            # A quick controller answers thousands of requests within the window.
            if last.command == command and now < last.received + _TOGETHER:
                last.copies_until = now + DUPLICATE_WINDOW
                return
        replies.append(_Reply(command, sent, now))

    def _original(self, command: int, not_before: float) -> _Reply | None:
        """Return the oldest reply to *command* that a frame which came after *not_before* may be the copy of."""
        replies = self._replies
        while replies and not_before >= replies[0].copies_until:
            del replies[0]
        for reply in replies:
            if reply.command == command:
                return reply
        return None

    def _keep_unanswered(self, command: int, now: float) -> None:
        equal = [at for at, unanswered in enumerate(self._unanswered) if unanswered.command == command]
        if len(equal) >= _MAX_UNANSWERED:
            # The two oldest become one, sent with the older and forgotten with the younger: no claim becomes younger.
            first, second = equal[:2]
            self._unanswered[second] = self._unanswered[second]._replace(sent=self._unanswered[first].sent)
            del self._unanswered[first]
        self._unanswered.append(_Unanswered(command, self._sent, now + max(self._fence, LATE_REPLY_WINDOW)))

    def _forget(self, not_before: float) -> None:
        unanswered = self._unanswered
        while unanswered and not_before >= unanswered[0].forget_at:
            del unanswered[0]

    def _oldest(self, command: int) -> _Unanswered | None:
        for unanswered in self._unanswered:
            if unanswered.command == command:
                return unanswered
        return None

    def _settle(self, command: int) -> _Unanswered | None:
        """Remove the oldest unanswered request with *command*, and all that were sent before it."""
        oldest = self._oldest(command)
        if oldest is not None:
            del self._unanswered[: self._unanswered.index(oldest) + 1]
        return oldest


class _Echo(Enum):
    NO = auto()
    PERHAPS = auto()
    YES = auto()


class _EchoFilter:
    """Tells the echoes of an adapter that returns what is sent, or of TX wired to RX, from replies.

    A frame that equals a request sent within the late-reply window is an echo. Only one kind of reply can look exactly
    like its request: that to AA, if the controller copies the ID. So the first reading of a connection decides: if it
    is answered without an echo, the line does not echo, and the ID in its reply tells whether the controller copies
    it. If the line echoes, the first equal frame after each request is the
    echo, and a second one may be the reply.
    """

    __slots__ = ("_copies_id", "_due", "_echoes", "_reading_sent", "longest", "requests")

    def __init__(self) -> None:
        self.requests: dict[Frame, float] = {}
        """The requests that were sent lately, and when each was sent last."""
        self.longest = 0
        """The most data bytes that any of them had."""
        self._due: list[Frame] = []
        self._echoes: bool | None = None
        self._reading_sent = False
        self._copies_id = False

    def connect(self) -> None:
        """Begin a new connection, of which nothing is known yet."""
        self._echoes = None
        self._reading_sent = False

    def sent(self, frame: Frame, now: float) -> None:
        """Note that a request is sent."""
        requests = self.requests
        if len(requests) >= _MAX_SENT_FRAMES and frame not in requests:
            oldest = min(requests, key=requests.__getitem__)
            del requests[oldest]
            if oldest in self._due:
                self._due.remove(oldest)
        requests[frame] = now
        if len(frame.data) > self.longest:  # noqa: PLR1730  # for every request: `max` takes five times as long
            self.longest = len(frame.data)
        if self._echoes is not False:
            if frame not in self._due:
                self._due.append(frame)
            if frame.command == _READ_REALTIME:
                self._reading_sent = True

    def reading_answered(self, *, copies_id: bool) -> None:
        """Note that a reading was answered: on a line that echoes, its echo would have come before."""
        if self._echoes is None and self._reading_sent:
            self._echoes = False
            self._copies_id = copies_id
            self._due.clear()

    @property
    def known(self) -> bool:
        """Whether it is known whether the line echoes."""
        return self._echoes is not None

    def judge(self, frame: Frame, not_before: float) -> _Echo:
        """Tell whether a frame that equals a request is its echo."""
        if frame.command in _NEVER_EQUAL:
            self._echoes = True
            return _Echo.YES
        if not_before >= self.requests[frame] + LATE_REPLY_WINDOW:
            return _Echo.NO
        if self._echoes is False:
            # The line has begun to echo if the controller does not answer with the ID of the request.
            return _Echo.NO if self._copies_id else _Echo.YES
        if frame in self._due:
            self._due.remove(frame)
            return _Echo.YES
        return _Echo.PERHAPS
