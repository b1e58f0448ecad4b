"""Decides which reply answers which request. Time is an argument, in seconds of any monotonic clock.

The protocol has no transaction ID, so a late reply looks like an answer. Two facts help: a controller answers each
request at most once and in order, and a reply repeats the command byte of its request. The rules:

1. A request that is abandoned (timeout, cancellation, lost connection) remains *unanswered*. No other request is sent
   until its reply was received and discarded, or until the fence has passed.
2. A reply with another command byte than the request in flight never answers it.
3. A reply settles every unanswered request that was sent before the one it answers, because replies keep their order.
4. A reply that comes after its fence looks like the answer to a later request with the same command. For
   `LATE_REPLY_WINDOW` seconds such an answer is *ambiguous*, and `Exchange.since` is how old it may be.
5. Some bridges deliver a reply twice. A reply within `DUPLICATE_WINDOW` seconds after another reply with the same
   command may be its copy: it is ambiguous too, and settles nothing.
6. If a copy has answered a reading, the reading's own reply still comes and answers the next reading, and so on.
   `Exchange.since` ignores this: otherwise almost every reading on a fast line would be reported as old.
   `Exchange.certain_since` includes it. It is used where certainty is needed: whether a command is clear (rule 8), and
   whether a reading was taken after a switch of the load.
7. A frame that equals a request that was sent is its echo, not an answer. See `EchoFilter`.
8. A late reply can arrive on another connection, and in another process. So a command that changes something is sent
   only when its reply cannot be confused with the reply to an earlier one. See `Exchange.clear_from`.

A frame is received between `not_before`, when the input was last known to be empty, and `now`. Windows are compared
with `not_before`. Otherwise an application that blocks the event loop for seconds would make a copy look like an
answer.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from tracer_async.protocol._echoes import Echo, EchoFilter
from tracer_async.protocol._windows import DUPLICATE_WINDOW, DUPLICATING_LINE_PERIOD, LATE_REPLY_WINDOW
from tracer_async.protocol.frame import CommandCode, Frame

__all__ = ["Exchange", "Match"]

# Limit for the memory, if a line never answers.
_MAX_UNANSWERED = 64

# Seconds within which replies to the same command are stored as one. A reply takes longer than this at 9600 baud.
_TOGETHER = 0.01

_READ_REALTIME = int(CommandCode.READ_REALTIME)


class Match(Enum):
    """What a received frame is."""

    ANSWER = auto()
    """The answer to the request in flight."""
    LATE = auto()
    """The reply to a request that was abandoned."""
    UNSOLICITED = auto()
    """The reply to no request of ours: a duplicate, or the reply to another master on the line."""
    ECHO = auto()
    """An echo of one of our own requests."""


# Accessing a member through its class takes as long as much of the other work for an answer (Python 3.11).
_ANSWER, _LATE, _UNSOLICITED, _ECHO = Match


class _Unanswered(NamedTuple):
    command: int
    sent: float
    forget_at: float


# A reply of which a copy may come, or several replies to one command received within `_TOGETHER`: the command, when the
# request of the first one was sent, when the first one was received, and until when a copy may come. It is a plain
# tuple because nearly every answer makes one: an object of a class or a NamedTuple takes several times as long.
_Reply = tuple[int, float, float, float]


# There may be thousands of lines, and most have no command and no unanswered request. So they share this dictionary,
# which must not be changed, and the empty tuple.
_NO_COMMANDS: dict[int, tuple[float, float | None]] = {}


class Exchange:
    """The request in flight, and the replies that may still come to earlier requests."""

    __slots__ = (
        "_behind",
        "_commands",
        "_connected_at",
        "_duplicating_until",
        "_echoes",
        "_fence",
        "_frame",
        "_others_clear_from",
        "_replies",
        "_to_settle",
        "_unanswered",
        "_unsolicited_limit",
        "ambiguous",
        "certain_since",
        "deadline",
        "free_at",
        "sent_at",
        "since",
    )

    def __init__(self, fence: float) -> None:
        self._fence = fence
        # The request in flight.
        self._frame: Frame | None = None
        self.sent_at: float = 0.0
        """When the last request was sent."""
        # Both oldest first.
        self._unanswered: tuple[_Unanswered, ...] = ()
        self._replies: list[_Reply] = []
        self._duplicating_until = 0.0
        # Latest time until which unsolicited replies may delay the next request. 0: none came since the last request.
        self._unsolicited_limit = 0.0
        self._echoes = EchoFilter()
        # For rule 8, see `clear_from`: the time from which commands are clear on this connection, None if they are not
        # clear yet. Each command that was sent on this connection has its own, and the time when it was sent.
        self._connected_at = 0.0
        self._others_clear_from: float | None = None
        self._commands = _NO_COMMANDS
        # For rule 6: when the last reading was sent whose own reply may still come, because a copy may have answered
        # it.
        self._behind: float | None = None
        # Whether the next answer to a reading changes what is known about commands and echoes. On a healthy line only
        # the first one does, so the others skip that work.
        self._to_settle = True
        self.free_at: float = 0.0
        """Time before which nothing may be sent. May be in the past."""
        self.deadline: float | None = None
        """When the request in flight times out. None if no request is in flight."""
        self.since: float = 0.0
        """When the oldest request that the last answer may belong to was sent."""
        self.certain_since: float = 0.0
        """As `since`, for the last reading, including the case of rule 6."""
        self.ambiguous: bool = False
        """Whether the last answer may belong to another request than the one in flight, or be its echo."""

    def connect(self, now: float) -> None:
        """Begin a new connection. Unanswered requests remain: their replies can arrive on the new connection."""
        self._connected_at = now
        self._others_clear_from = None
        self._commands = _NO_COMMANDS
        self._to_settle = True
        self._echoes.connect(self.sent_at)

    @property
    def in_flight(self) -> bool:
        """Whether a request waits for its answer."""
        return self._frame is not None

    def start(self, frame: Frame, now: float, timeout: float) -> None:
        """Record that a request is sent now. Raises RuntimeError if a request is in flight, or before `free_at`."""
        if self._frame is not None or now < self.free_at:
            raise RuntimeError("a request is in flight, or the fence is up")
        echoes = self._echoes
        if frame is not echoes.unchanged:
            echoes.sent(frame, now, self.sent_at)
            if frame.command != _READ_REALTIME:
                self._commands = {**self._commands, frame.command: (now, None)}
                self._to_settle = True
        self._frame = frame
        self.sent_at = now
        self._unsolicited_limit = 0.0
        self.deadline = now + timeout

    def abandon(self, now: float) -> None:
        """Stop waiting for the request in flight, if there is one. It becomes unanswered (rule 1)."""
        if self._frame is not None:
            self._keep_unanswered(self._frame.command, now)
            copies_until = self._replies[-1][3] if self._replies else 0.0
            self.free_at = max(self.free_at, now + self._fence, copies_until)
            self._frame = self.deadline = None

    def receive(self, frame: Frame, now: float, not_before: float) -> Match:
        """Return what a good frame is. For an answer, set `since` and `ambiguous`."""
        command = frame.command
        if self._unanswered:
            self._forget(not_before)
        original = self._original(command, not_before)
        request = self._frame
        may_be_echo = False
        echoes = self._echoes
        # Most replies are longer than any request.
        if len(frame.data) <= echoes.longest:
            verdict = echoes.judge(frame, not_before, self.sent_at)
            if verdict is Echo.YES:
                return _ECHO
            may_be_echo = verdict is Echo.PERHAPS
        if request is None or command != request.command:
            # A possible echo settles nothing: the reply may still come.
            return _ECHO if may_be_echo else self._receive_other(command, now, original)
        older = None
        if self._unanswered:
            older = self._oldest(command) if may_be_echo else self._settle(command)
        since = self.sent_at if older is None else older.sent
        reading = command == _READ_REALTIME
        may_be_copy = original is not None and not reading
        behind = self._behind if reading else None
        if behind is not None and not_before >= behind + LATE_REPLY_WINDOW:
            behind = None
        if older is not None or may_be_echo or may_be_copy:
            # If this is the reply to the older request, an echo or a copy, the reply to this request will still come:
            # keep it as unanswered. Not for a possible copy of a reading: readings follow each other closely, so that
            # nearly all of them would be kept, and rule 6 covers that case.
            self._keep_unanswered(command, now)
        elif self._unanswered:
            kept = () if behind is None else (each for each in self._unanswered if each.sent > behind)
            self._unanswered = tuple(kept)
        if original is not None and original < since:
            since = original
        self.since = since
        self.ambiguous = may_be_echo or older is not None or original is not None
        if reading:
            self.certain_since = since if behind is None or since < behind else behind
            self._behind = None if behind is None and original is None else self.sent_at
            if self._to_settle:
                self._reading_answered(now, copies_id=frame.controller_id == request.controller_id)
        elif not self.ambiguous:
            self._behind = None
        self._frame = self.deadline = None
        self._may_come_again(command, self.sent_at, now)
        # On a line that has never sent an unsolicited reply there is no pause.
        self.free_at = self._pause(now) if self._unanswered or self._duplicating_until else now
        return _ANSWER

    def _receive_other(self, command: int, now: float, original: float | None) -> Match:
        """Return what a reply is that does not answer the request in flight."""
        if original is not None:
            # Either a copy, or a late reply. That is unknown, so it settles nothing.
            self._delay_after_unsolicited(now)
            return _LATE if self._oldest(command) is not None else _UNSOLICITED
        older = self._settle(command)
        if older is None:
            if command == _READ_REALTIME:
                self._behind = None  # the reply that a copy had replaced (rule 6) has come
            self._delay_after_unsolicited(now)
            return _UNSOLICITED
        self._may_come_again(command, older.sent, now)
        pause = self._pause(now)
        self.free_at = max(self.free_at, pause) if self._unanswered else pause
        return _LATE

    # When a command is clear: rule 8.

    def clear_from(self, command: int | None) -> float | None:
        """Return the time from which a reply to *command* cannot be confused. None: a reading must be answered first.

        Before the first command on a connection, and between two equal commands, a reading must be sent and answered on
        this connection. Replies keep their order, so its answer settles all requests before it. Then the duplicate
        window must pass. If *command* is None, only the condition for the first command on a connection is checked.
        """
        if command is not None and command in self._commands:
            return self._commands[command][1]
        return self._others_clear_from

    def copies_until(self, command: int) -> float:
        """Return until when a copy of an earlier reply to *command* may come. May be in the past."""
        return max((copies_until for code, _, _, copies_until in self._replies if code == command), default=0.0)

    def has_unanswered_command(self, now: float) -> bool:
        """Whether a command other than a reading was sent, is unanswered, and may still be executed."""
        if self._frame is not None and self._frame.command != _READ_REALTIME:
            return True
        # Nothing is forgotten here: a reply that came before *now* may still be unread.
        return any(each.command != _READ_REALTIME and now < each.forget_at for each in self._unanswered)

    def _reading_answered(self, now: float, *, copies_id: bool) -> None:
        self._echoes.reading_answered(copies_id=copies_id)
        # The answer may be the reply to a reading of an earlier connection. Then it says nothing about this one.
        if self.certain_since < self._connected_at:
            return
        if self._others_clear_from is None:
            self._others_clear_from = now + DUPLICATE_WINDOW
        self._to_settle = not self._echoes.known
        for command, (sent, clear_from) in self._commands.items():
            if clear_from is None:
                if self.certain_since >= sent:
                    self._commands[command] = (sent, now + DUPLICATE_WINDOW)
                else:
                    self._to_settle = True

    # Pauses.

    def _delay_after_unsolicited(self, now: float) -> None:
        self._duplicating_until = now + DUPLICATING_LINE_PERIOD
        # A copy of it may come, unless it is too late to be a reply to a request of ours. The limit is there because
        # another master may keep receiving replies, which must not delay our requests forever.
        if now < self.sent_at + LATE_REPLY_WINDOW + DUPLICATE_WINDOW:
            if not self._unsolicited_limit:
                self._unsolicited_limit = now + 2 * DUPLICATE_WINDOW
            self.free_at = max(self.free_at, min(now + DUPLICATE_WINDOW, self._unsolicited_limit))

    def _pause(self, now: float) -> float:
        """Return when the next request may be sent.

        At once on a line that is known to be good. Otherwise after the duplicate window of this reply, so that a copy
        of it cannot be confused with the next answer.
        """
        return now + DUPLICATE_WINDOW if self._unanswered or now < self._duplicating_until else now

    # Unanswered requests, and replies that may come again.

    def _may_come_again(self, command: int, sent: float, now: float) -> None:
        replies = self._replies
        if replies:
            last, last_sent, received, _ = replies[-1]
            # A simulated controller answers thousands of requests within the window, which would be a long list.
            if last == command and now < received + _TOGETHER:
                replies[-1] = (command, last_sent, received, now + DUPLICATE_WINDOW)
                return
        replies.append((command, sent, now, now + DUPLICATE_WINDOW))

    def _original(self, command: int, not_before: float) -> float | None:
        """Return the oldest reply to *command* of which a frame that came after *not_before* may be a copy.

        It is given as the time when its request was sent. None: the frame is not a copy.
        """
        replies = self._replies
        while replies and not_before >= replies[0][3]:
            del replies[0]
        for code, sent, _, _ in replies:
            if code == command:
                return sent
        return None

    def _keep_unanswered(self, command: int, now: float) -> None:
        unanswered = list(self._unanswered)
        equal = [at for at, each in enumerate(unanswered) if each.command == command]
        if len(equal) >= _MAX_UNANSWERED:
            # Merge the two oldest: sent when the older one was, forgotten when the younger one is. So no answer is
            # reported as newer than it may be.
            first, second = equal[:2]
            unanswered[second] = unanswered[second]._replace(sent=unanswered[first].sent)
            del unanswered[first]
        unanswered.append(_Unanswered(command, self.sent_at, now + max(self._fence, LATE_REPLY_WINDOW)))
        self._unanswered = tuple(unanswered)

    def _forget(self, not_before: float) -> None:
        while self._unanswered and not_before >= self._unanswered[0].forget_at:
            self._unanswered = self._unanswered[1:]

    def _oldest(self, command: int) -> _Unanswered | None:
        for unanswered in self._unanswered:
            if unanswered.command == command:
                return unanswered
        return None

    def _settle(self, command: int) -> _Unanswered | None:
        """Remove the oldest unanswered request with *command*, and all that were sent before it."""
        oldest = self._oldest(command)
        if oldest is not None:
            self._unanswered = self._unanswered[self._unanswered.index(oldest) + 1 :]
        return oldest
