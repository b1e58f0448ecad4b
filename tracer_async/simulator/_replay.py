"""A recording as a controller: answers each request as it was answered then.

The rules:

1. What was received from one request until the next one is the answer to it: replies, damage, late replies to earlier
   requests, the end of the connection. So a client that sends the same requests receives the same bytes in the same
   order.
2. Requests are compared as a controller compares them: by command and data, but not by ID, start-up bytes, or the data
   of a request for measurements, which controllers ignore.
3. A request that does not come next in the recording gets the answer to the next equal request after that place. If
   there is none, there is silence, because nothing is known of what the controller would answer. With ``loop`` the
   search goes on from the start.
4. ``speed`` shortens all times up to the timeout of the recorded client. What came later was late, and stays late: the
   client waits its own timeout. It is left out if the client asks again before that time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from tracer_async.capture import Burst, LinkChange, Recording, RecordingHeader
from tracer_async.protocol import CommandCode, Event, Frame, FrameDecoder
from tracer_async.protocol._numbers import check_number
from tracer_async.simulator._port import Ending, Idle, Port, Step, Wait

__all__ = ["Replay"]

# Seconds that a client waited, if the recording does not say it: the default of `TracerClient`.
_TIMEOUT = 1.0

_CONTROLLER = "controller"


class _Sent(NamedTuple):
    """What was received after a request, or after the connection was established."""

    request: tuple[int, bytes] | None
    """None: the connection was established, and nothing had been asked yet."""
    timeout: float
    steps: list[tuple[float, bytes | Ending]]
    """Each with its seconds after the request."""


class Replay:
    """Serves a recording: pass it to `serve_tcp`, `serve_unix`, `serve_pty` or `open_in_process` instead of a tracer.

    All its connections go on in the same place of the recording, as they would lead to one controller. Raises TypeError
    or ValueError for a speed that is not a number or is out of range (``docs/ranges.md``).

    :param recording: A recording, or a capture of JSON lines with both directions. Without times in it, answers come at
        once.
    :param speed: How many times faster than then. 0: without any delay up to the timeout of the recorded client.
    :param loop: Whether to begin again after the end, instead of silence.
    """

    def __init__(self, recording: Recording, *, speed: float = 1.0, loop: bool = False) -> None:
        self._speed = check_number("speed", speed)
        self._loop = loop
        self._answers = _answers(recording)
        # The next answer that may be given.
        self._next = 0
        self.unanswered: int = 0
        """Number of requests for which the recording has no answer."""

    @property
    def remaining(self) -> int:
        """Number of recorded requests after the present place."""
        return sum(answer.request is not None for answer in self._answers[self._next :])

    def port(self, *, is_serial: bool = False) -> Port:
        """Return a new connection. A serial port, unlike others, is never closed from the other side."""
        return _ReplayPort(self, is_serial=is_serial)

    def connected(self) -> Iterable[Step]:
        """Return what the next recorded connection begins with, if the one before has ended."""
        if self._next < len(self._answers) and self._answers[self._next].request is None:
            self._next += 1
            return self._steps(self._answers[self._next - 1])
        return ()

    def answer(self, frame: Frame) -> Iterable[Step]:
        """Return the answer to a request."""
        request = _key(frame)
        places = range(self._next, len(self._answers))
        for place in chain(places, range(self._next)) if self._loop else places:
            if self._answers[place].request == request:
                self._next = place + 1
                return self._steps(self._answers[place])
        self.unanswered += 1
        return ()

    def _steps(self, answer: _Sent) -> Iterator[Step]:
        at = 0.0
        for seconds, step in answer.steps:
            is_late = seconds > answer.timeout
            due = seconds if is_late and self._speed_is_high else seconds / self._speed if self._speed else 0.0
            if due > at:
                yield Idle(due - at) if is_late else Wait(due - at)
                at = due
            yield step

    @property
    def _speed_is_high(self) -> bool:
        return self._speed == 0 or self._speed >= 1


class _ReplayPort:
    """One connection to a recording. See `Port`."""

    __slots__ = ("_decoder", "_is_serial", "_replay")

    def __init__(self, replay: Replay, *, is_serial: bool) -> None:
        self._replay = replay
        self._is_serial = is_serial
        self._decoder = FrameDecoder()

    @property
    def pending(self) -> int:
        """See `Port`."""
        return self._decoder.pending

    def greet(self) -> Iterator[Step]:
        """See `Port`."""
        return self._possible(self._replay.connected())

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Step]:
        """See `Port`."""
        return self._answer(self._decoder.feed(data))

    def flush(self) -> Iterator[Step]:
        """See `Port`."""
        return self._answer(self._decoder.flush())

    def _answer(self, events: list[Event]) -> Iterator[Step]:
        frames = [event for event in events if isinstance(event, Frame)]
        for frame in frames:
            for step in self._possible(self._replay.answer(frame)):
                # The next request is here already, so nothing late is sent any more.
                if isinstance(step, Idle) and frame is not frames[-1]:
                    break
                yield step

    def _possible(self, steps: Iterable[Step]) -> Iterator[Step]:
        return (step for step in steps if not (self._is_serial and isinstance(step, Ending)))


def _key(frame: Frame) -> tuple[int, bytes]:
    return frame.command, b"" if frame.command == CommandCode.READ_REALTIME else frame.data


def _answers(recording: Recording) -> list[_Sent]:
    """Return what was received after each request, in order."""
    answers: list[_Sent] = []
    timeout = _TIMEOUT
    since = 0.0
    decoders: dict[str, FrameDecoder] = {}
    for record in recording.records:
        if isinstance(record, RecordingHeader):
            timeout = _TIMEOUT if record.timeout is None else record.timeout
            since = 0.0
            decoders.clear()
        elif isinstance(record, LinkChange):
            decoders.clear()
            if record.up:
                since = record.t
                answers.append(_Sent(None, timeout, []))
            elif answers and not record.by_client:
                answers[-1].steps.append((record.t - since, Ending.HANG_UP))
        elif isinstance(record, Burst):
            t = since if record.t is None else record.t
            if record.sender == _CONTROLLER:
                if not answers:
                    answers.append(_Sent(None, timeout, []))
                    since = t
                answers[-1].steps.append((t - since, record.data))
                continue
            for event in decoders.setdefault(record.sender, FrameDecoder()).feed(record.data):
                if isinstance(event, Frame):
                    since = t
                    answers.append(_Sent(_key(event), timeout, []))
    return answers
