"""A model of the wire and the controller, in virtual time. It shares nothing with the session except the bytes.

`Controller` answers each request at most once and in order. `Wire` loses, delays, doubles, damages and echoes. All
delays are multiples of 1/64 s, so that sums of them are exact.

The model stays within the bounds of the promise: a reply comes at most 10 s after its request, a copy less than 0.25 s
after its original.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from itertools import count

from tracer_async.protocol import SYNC, Frame

A0, AA, AD = 0xA0, 0xAA, 0xAD
LATEST_REPLY = 10.0
LATEST_COPY = 0.25


@dataclass(frozen=True)
class Fate:
    """What happens to one request and its reply."""

    request_lost: bool = False
    reply_lost: bool = False
    reply_damaged: bool = False
    request_delay: float = 1 / 64
    reply_delay: float = 1 / 32
    copies: tuple[float, ...] = ()
    """How long after the reply its copies come."""
    echo_copies: tuple[float, ...] = ()
    pause: float = 0.0
    """How long the second half of the reply comes after the first."""


HEALTHY = Fate()


@dataclass(eq=False)
class Sent:
    """A request on the wire."""

    frame: Frame
    at: float
    fate: Fate
    abandoned_at: float | None = None
    replied: bool = False
    """Whether a frame with its command was received since it was sent."""
    echoed: bool = False
    """Whether an echo was received since, which may look like the reply (AA only)."""
    answered: bool = False
    """Whether one was received while it was in flight."""
    answered_by: Sent | None = None
    executed_at: float | None = None
    load_after: bool | None = None
    """The load's state that the controller answered with."""


@dataclass(eq=False)
class Arrival:
    """Bytes that arrive together."""

    raw: bytes
    frame: Frame | None
    """The good frame that they complete."""
    kind: str
    sent: Sent | None = None
    original: Arrival | None = None
    behind: bool = False
    """Whether it answered a later reading, because a copy had answered its own (rule 6 of `Exchange`)."""
    arrived_at: float | None = None


@dataclass
class Controller:
    """A controller with a load, settings, and a counter that numbers its measurements."""

    copies_id: bool = False
    refuses: bool = False
    load: bool = False
    load_history: list[tuple[float, bool]] = field(default_factory=lambda: [(0.0, False)])
    measured: list[float] = field(default_factory=list)
    """When each measurement was made; the battery voltage says which one it is."""

    def set_load(self, load: bool, now: float) -> None:
        self.load = load
        self.load_history.append((now, load))

    def had_load(self, load: bool, since: float) -> bool:
        """Return whether the load was in this state at a moment since then."""
        return self.load is load or any(
            state is load
            for (_, state), (end, _) in zip(self.load_history, self.load_history[1:], strict=False)
            if end >= since
        )

    def reading(self, now: float) -> Frame:
        self.measured.append(now)
        data = (len(self.measured) - 1).to_bytes(2, "little") + bytes(10) + bytes([self.load]) + bytes(11)
        return Frame(0x00, A0, data)

    def answer(self, sent: Sent, now: float) -> Frame:
        sent.executed_at = now
        reply = self.reading(now)
        if sent.frame.command == AA:
            if not self.refuses:
                self.set_load(sent.frame.data == b"\x01", now)
            reply = Frame(0x00, AA, bytes([self.load]))
        elif sent.frame.command == AD:
            reply = Frame(0x00, AD, b"")
        sent.load_after = self.load
        return reply._replace(controller_id=sent.frame.controller_id) if self.copies_id else reply


class Wire:
    """The connection between a session's driver and the controller."""

    def __init__(self, controller: Controller, *, echoes: bool) -> None:
        self.controller = controller
        self.echoes = echoes
        self.up = False
        self.keeps = False
        """Whether a bridge keeps what arrives while there is no connection."""
        self.unread: deque[Arrival] = deque()
        self._requests: deque[tuple[float, Sent]] = deque()
        self._arrivals: list[tuple[float, int, Arrival]] = []
        self._numbers = count()
        self._last_reply = 0.0
        self._connected_at = 0.0
        self._halves: list[tuple[float, float]] = []
        """When the halves of replies with a pause come."""

    @property
    def idle(self) -> bool:
        """Whether no bytes are in transit."""
        return not self._requests and not self._arrivals and not self.unread

    def half_arrived(self, now: float) -> float | None:
        """Return when the first half of a reply arrived, if the second half has not arrived."""
        return next((first for first, second in self._halves if first <= now < second), None)

    @property
    def _flows(self) -> bool:
        """Whether arriving bytes are lost, because no bridge keeps them."""
        return self.up or not self.keeps

    def next_event(self) -> float:
        request = self._requests[0][0] if self._requests else float("inf")
        arrival = self._arrivals[0][0] if self._arrivals and self._flows else float("inf")
        return min(request, arrival)

    def send(self, sent: Sent) -> None:
        fate = sent.fate
        if self.echoes:
            self._put_copies(
                self._put(self._after_halves(sent.at + 1 / 64), sent.frame, "echo", sent), fate.echo_copies
            )
        if not fate.request_lost:
            last = self._requests[-1][0] if self._requests else 0.0
            self._requests.append((max(last, sent.at + fate.request_delay), sent))

    def put_foreign(self, frame: Frame, now: float) -> None:
        """Deliver an unsolicited reply."""
        self._put(now, frame, "foreign", None)

    def put_bytes(self, raw: bytes, now: float) -> None:
        heapq.heappush(self._arrivals, (now, next(self._numbers), Arrival(raw, None, "noise")))

    def disconnect(self, *, keeps: bool) -> None:
        """Lose the connection and what the driver has not read; with *keeps*, the rest arrives on the next one."""
        self.up = False
        self.keeps = keeps
        self.unread.clear()
        self._halves.clear()
        self._arrivals = [entry for entry in self._arrivals if keeps and not entry[2].kind.startswith("half")]
        heapq.heapify(self._arrivals)
        if not keeps:
            self._requests.clear()

    def connect(self, now: float) -> None:
        self.up = True
        self._connected_at = now
        self.process(now)

    def process(self, until: float) -> None:
        """Let everything happen that is due."""
        while True:
            request = self._requests[0][0] if self._requests else float("inf")
            arrival = self._arrivals[0][0] if self._arrivals and self._flows else float("inf")
            if min(request, arrival) > until:
                return
            if request <= arrival:
                at, sent = self._requests.popleft()
                self._reply(sent, at)
            elif self.up:
                self._arrive(heapq.heappop(self._arrivals)[2], max(arrival, self._connected_at))
            else:
                heapq.heappop(self._arrivals)

    def _arrive(self, arrival: Arrival, now: float) -> None:
        if arrival.sent is not None and now > arrival.sent.at + LATEST_REPLY:
            return
        original = arrival.original
        if original is not None and original.arrived_at is not None and now >= original.arrived_at + LATEST_COPY:
            return
        arrival.arrived_at = now
        self.unread.append(arrival)

    def _reply(self, sent: Sent, now: float) -> None:
        fate = sent.fate
        frame = self.controller.answer(sent, now)
        if fate.reply_lost:
            return
        at = self._after_halves(max(self._last_reply, now + fate.reply_delay))
        self._last_reply = at + fate.pause
        if fate.reply_damaged:
            damaged = bytearray(frame.encode(start_up=False))
            damaged[-2] ^= 0x55
            heapq.heappush(self._arrivals, (at, next(self._numbers), Arrival(bytes(damaged), None, "noise", sent)))
        elif fate.pause and not any(at <= entry[0] <= at + fate.pause for entry in self._arrivals):
            raw = frame.encode(start_up=False)
            self._halves.append((at, at + fate.pause))
            first, second = Arrival(raw[:9], None, "half", sent), Arrival(raw[9:], frame, "half reply", sent)
            heapq.heappush(self._arrivals, (at, next(self._numbers), first))
            heapq.heappush(self._arrivals, (at + fate.pause, next(self._numbers), second))
        else:
            self._put_copies(self._put(at, frame, "reply", sent), fate.copies)

    def _put(self, at: float, frame: Frame, kind: str, sent: Sent | None) -> tuple[float, Arrival]:
        arrival = Arrival(frame.encode(start_up=False), frame, kind, sent)
        heapq.heappush(self._arrivals, (at, next(self._numbers), arrival))
        return at, arrival

    def _put_copies(self, put: tuple[float, Arrival], copies: tuple[float, ...]) -> None:
        at, original = put
        for after in copies:
            if self._after_halves(at + after) == at + after:
                copy = Arrival(original.raw, original.frame, original.kind, original.sent, original)
                heapq.heappush(self._arrivals, (at + after, next(self._numbers), copy))

    def _after_halves(self, at: float) -> float:
        """Return the first moment from *at* on that is not within a reply with a pause."""
        for first, second in sorted(self._halves):
            if first <= at <= second:
                at = second + 1 / 64
        return at


def request_of(raw: bytes) -> Frame:
    """Return the request in the bytes that a session sends."""
    body = raw[raw.index(SYNC) + len(SYNC) :]
    return Frame(body[0], body[1], body[3 : 3 + body[2]])
