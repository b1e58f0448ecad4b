"""The readings of a recording, with the times at which they were taken."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from tracer_async.capture._json_lines import Burst, LinkChange, MissingRecords, RecordingHeader
from tracer_async.capture._recording import CONTROLLER, Recording
from tracer_async.client.reading import Reading
from tracer_async.errors import LinkLostError, MalformedReplyError, ResponseTimeoutError
from tracer_async.protocol import CommandCode, CorruptFrame, Event, Exchange, Frame, FrameDecoder, Match, RealtimeData
from tracer_async.protocol._reception import Reception

__all__ = ["readings_of"]

# Seconds to wait for an answer if the recording does not say how long its client waited.
_TIMEOUT = 1.0


def readings_of(recording: Recording, address: str = "") -> Iterator[Reading]:
    """Yield a `Reading` for each request for measurements, in order: the answer, or the error that it got none.

    Requests and replies are matched by the rules of the client, so a reading has the age that the client gave it, or a
    smaller one where the client did not know exactly when the bytes came. A request that was repeated gives an error
    for each time that it got no answer. A request whose answer may be a missing record gives neither. Late replies,
    copies and replies to other masters are no readings. If there are no requests at all, each reply is a reading of
    unknown age. In the recording of a listener, so is each reply that answers no request: as for
    `tracer_async.sharing.Listener`, the request may be the part that was not received.

    *address* is the name of the controller in error messages. Readings of a capture without times are dated 1970.
    """
    pairing = _Pairing(address, has_requests=_has_requests(recording))
    for record in recording.records:
        if isinstance(record, RecordingHeader):
            yield from pairing.flush()
            pairing.begin(record)
        elif isinstance(record, LinkChange):
            yield from pairing.advance(record.t, record.time)
            yield from pairing.link_changed(record)
        elif isinstance(record, MissingRecords):
            yield from pairing.records_missing()
        elif isinstance(record, Burst):
            if record.t is not None and record.time is not None:
                yield from pairing.advance(record.t, record.time)
            yield from pairing.burst(record)
    yield from pairing.flush()


def _has_requests(recording: Recording) -> bool:
    """Return whether anyone but the controller has sent a frame. Bytes alone may be noise."""
    decoders: dict[str, FrameDecoder] = {}
    return any(
        isinstance(event, Frame)
        for burst in recording.bursts
        if burst.sender != CONTROLLER
        for event in decoders.setdefault(burst.sender, FrameDecoder()).feed(burst.data)
    )


class _Pairing:
    """Matches requests and replies, with the `Exchange` and the `Reception` of a client."""

    def __init__(self, address: str, *, has_requests: bool) -> None:
        self._address = address
        self._has_requests = has_requests
        # The present time of both clocks of the recording.
        self._now = self._wall = 0.0
        self.begin(RecordingHeader(""))

    def begin(self, header: RecordingHeader) -> None:
        """Begin a recording, or another part of one: its clock has nothing to do with that of the part before."""
        self._now = 0.0
        self._is_listener = header.kind == "listener"
        self._timeout = _TIMEOUT if header.timeout is None else header.timeout
        self._exchange = Exchange(0.0)
        self._reception = Reception()
        self._requests: dict[str, FrameDecoder] = {}
        self._command: int | None = None
        self._extended = False
        self._frames = self._damaged_frames = self._stray_bytes = 0

    def advance(self, t: float, wall: float) -> Iterator[Reading]:
        """Go on to the time of the next record. Yield what becomes due until then: pauses in frames, and timeouts.

        In a file that was edited *t* can go back. The last time counts then, as no age is negative.
        """
        t = max(t, self._now)
        wall_offset = wall - t
        while True:
            timeout = self._exchange.deadline
            pause = self._reception.deadline() if self._reception.pending else None
            due = min((at for at in (timeout, pause) if at is not None), default=None)
            if due is None or due > t:
                break
            self._now, self._wall = due, due + wall_offset
            if due == pause:
                yield from self._received(*self._reception.tick(due))
            else:
                yield from self._time_out(due)
        self._now, self._wall = t, wall

    def flush(self) -> Iterator[Reading]:
        """Yield the readings of all remaining bytes."""
        yield from self._received(*self._reception.disconnect())

    def link_changed(self, change: LinkChange) -> Iterator[Reading]:
        """Yield the readings of the bytes before the change, and the error of the request in flight.

        There is no error if the client closed the connection, and so gave up the request itself.
        """
        yield from self.flush()
        if self._exchange.in_flight and self._command == CommandCode.READ_REALTIME and not change.by_client:
            # The file may have any text, and the error is printed.
            cause = "".join(letter if letter.isprintable() else "?" for letter in change.cause)
            error = LinkLostError(self._address, cause.removeprefix(f"{self._address}: ") or "connection lost")
            yield Reading(self._wall, None, error)
        self._exchange.abandon(self._now)
        self._exchange.connect(self._now)
        self._requests.clear()

    def records_missing(self) -> Iterator[Reading]:
        """Yield the readings of the bytes before missing records.

        There is no error for the request in flight: its reply may be one of the missing records.
        """
        yield from self.flush()
        self._exchange.abandon(self._now)
        self._requests.clear()

    def burst(self, burst: Burst) -> Iterator[Reading]:
        """Yield the readings of a burst."""
        if burst.sender == CONTROLLER:
            yield from self._received(*self._reception.feed(burst.data, self._now, self._now))
            return
        for event in self._requests.setdefault(burst.sender, FrameDecoder()).feed(burst.data):
            if isinstance(event, Frame):
                if self._exchange.in_flight:
                    yield from self._abandon(self._now)
                # Another program may send earlier than this library would.
                self._exchange.free_at = self._now
                self._exchange.start(event, self._now, self._timeout)
                self._command = event.command
                self._extended = False
                self._frames = self._damaged_frames = self._stray_bytes = 0

    def _received(self, events: list[Event], not_before: float) -> Iterator[Reading]:
        for event in events:
            if not isinstance(event, Frame):
                self._damaged_frames += isinstance(event, CorruptFrame)
                self._stray_bytes += len(event.raw)
            elif not self._has_requests:
                if event.command == CommandCode.READ_REALTIME:
                    yield self._reading(event, inf)
            elif self._exchange.receive(event, self._now, not_before) is Match.ANSWER:
                if event.command == CommandCode.READ_REALTIME:
                    yield self._reading(event, self._now - self._exchange.since)
            elif self._is_listener and event.command == CommandCode.READ_REALTIME:
                yield self._reading(event, inf)
            else:
                self._frames += 1

    def _reading(self, frame: Frame, age: float) -> Reading:
        try:
            data = RealtimeData.from_bytes(frame.data)
        except ValueError as error:
            malformed = MalformedReplyError(self._address, frame.command, frame.data, str(error))
            return Reading(self._wall, None, malformed)
        return Reading(self._wall, data, None, age)

    def _time_out(self, now: float) -> Iterator[Reading]:
        completes_by = None if self._command is None else self._reception.completes_by(self._command)
        if completes_by is not None and now < completes_by and not self._extended:
            # The client waits for the rest of a reply too.
            self._extended = True
            self._exchange.deadline = completes_by
        else:
            yield from self._abandon(now)

    def _abandon(self, now: float) -> Iterator[Reading]:
        waited = now - self._exchange.sent_at
        self._exchange.abandon(now)
        if self._command == CommandCode.READ_REALTIME:
            error = ResponseTimeoutError(
                self._address,
                CommandCode.READ_REALTIME,
                waited,
                1,
                frames=self._frames,
                damaged_frames=self._damaged_frames,
                stray_bytes=self._stray_bytes,
            )
            yield Reading(self._wall, None, error)
