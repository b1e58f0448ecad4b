"""A port with the faults of a `Faults` object, without I/O.

The faults of one request apply in this order:

1. The request is lost or delayed: half-open, silence, drop, stall.
2. The controller acts on it once.
3. The reply is delayed (late, flood), encoded (id, double), damaged (flip, cut or hangup, tear), joined by other bytes
   (foreign, stray) and sent (drip).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tracer_async.protocol import OVERHEAD, CommandCode, Event, Frame, FrameDecoder, LoadState
from tracer_async.simulator import _damage
from tracer_async.simulator._port import Discard, Ending, Port, SimulatedPort, Step, Wait
from tracer_async.simulator._replay import Replay
from tracer_async.simulator.device import SimulatedTracer
from tracer_async.simulator.faults import FAULT_KINDS, Fault, Faults

__all__ = ["FaultyPort", "check_faults", "make_port"]

_FLOOD_CHUNK = 4096


def check_faults(tracer: SimulatedTracer | Replay, faults: Faults | None) -> None:
    """Raise ValueError if *faults* has any and *tracer* is a recording."""
    if isinstance(tracer, Replay) and faults is not None and faults.faults:
        raise ValueError("faults cannot be added to those of a recording")


def make_port(tracer: SimulatedTracer | Replay, faults: Faults | None, *, is_serial: bool = False) -> Port:
    """Return a new port of *tracer*, with faults if *faults* has any. Raises ValueError as `check_faults` does."""
    check_faults(tracer, faults)
    if isinstance(tracer, Replay):
        return tracer.port(is_serial=is_serial)
    return FaultyPort(tracer, faults) if faults is not None and faults.faults else SimulatedPort(tracer)


class FaultyPort:
    """One connection to a simulated controller, with faults. See `Port` for its methods.

    The steps are generated lazily: the controller acts on a request only after all earlier steps were executed. A
    request that waited for a late reply is therefore answered with the data of that later moment.
    """

    __slots__ = ("_connect_faults", "_decoder", "_injected", "_last_data", "_random", "_request_faults", "_tracer")

    def __init__(self, tracer: SimulatedTracer, faults: Faults) -> None:
        self._tracer = tracer
        self._decoder = FrameDecoder()
        self._random = faults.next_random()
        self._injected = faults.injected
        self._connect_faults = [fault for fault in faults.faults if FAULT_KINDS[fault.kind].on_connect]
        self._request_faults = [fault for fault in faults.faults if not FAULT_KINDS[fault.kind].on_connect]
        # Data of the last reply to each command: a torn frame has the data of one reply and the CRC of the next.
        self._last_data: dict[int, bytes] = {}

    @property
    def pending(self) -> int:
        """See `Port`."""
        return self._decoder.pending

    def greet(self) -> Iterator[Step]:
        """See `Port`."""
        chosen = self._draw(self._connect_faults)
        if banner := self._inject(chosen, "banner"):
            yield f"{banner.text}\r\n".encode()
        if self._inject(chosen, "refuse"):
            yield Ending.HANG_UP

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Step]:
        """See `Port`."""
        return self._answer(self._decoder.feed(data))

    def flush(self) -> Iterator[Step]:
        """See `Port`."""
        return self._answer(self._decoder.flush())

    def _answer(self, events: Iterable[Event]) -> Iterator[Step]:
        for event in events:
            if isinstance(event, Frame):
                for step in self._serve(event):
                    yield step
                    if isinstance(step, Discard | Ending):
                        # Requests received together with this one are lost too: without this, silence would lose only
                        # one request, and a connection that is over would still be answered.
                        self._decoder = FrameDecoder()
                        return

    def _serve(self, request: Frame) -> Iterator[Step]:
        chosen = self._draw(self._request_faults)
        if self._inject(chosen, "half-open"):
            yield Ending.HALF_OPEN
            return
        if silence := self._inject(chosen, "silence"):
            yield Discard(silence.amount)
            return
        if self._inject(chosen, "drop"):
            return
        # The faults above lose the request before the controller acts on it. The faults below affect only the reply. So
        # a client without an answer meets both cases: a command that was not executed, and one that was.
        if stall := self._inject(chosen, "stall"):
            yield Wait(stall.amount)
        reply = self._tracer.answer(request)
        if reply is None:
            return
        frame = _damage.first_good_frame(reply)
        if frame is None or len(reply) != OVERHEAD + len(frame.data):
            # A subclass of SimulatedTracer may return anything: send it unchanged.
            yield reply
            return
        # The usual case, without a fault, sends the bytes of the controller and not a copy encoded here.
        if chosen:
            yield from self._send(frame, chosen)
        else:
            yield reply
        self._last_data[frame.command] = frame.data

    def _send(self, frame: Frame, chosen: dict[str, Fault]) -> Iterator[Step]:
        random = self._random
        if late := self._inject(chosen, "late"):
            yield Wait(late.amount)
        if flood := self._inject(chosen, "flood"):
            left = int(flood.amount)
            while left > 0:
                yield _damage.garbage(min(left, _FLOOD_CHUNK), random)
                left -= _FLOOD_CHUNK
        # A connection that closes during a reply: no frame, not even a duplicate, may be complete before it closes.
        hangup = self._inject(chosen, "hangup") is not None
        frames: list[bytes | None] = [*self._frames(frame, chosen, hangup=hangup)]
        if self._inject(chosen, "foreign"):
            # None marks the place of the foreign reply, which is encoded when it is sent. Nothing follows a cut reply
            # of a connection that closes, so a foreign reply comes before it.
            frames.insert(0 if hangup or random.random() < 0.5 else len(frames), None)
        is_stray = self._inject(chosen, "stray") is not None
        drip = self._inject(chosen, "drip")
        for encoded in frames:
            # The waits above may be long. Encoded here, a foreign reply has the data of the moment it is sent.
            raw = self._foreign() if encoded is None else encoded
            if is_stray:
                raw = _damage.stray(random) + raw
            if drip is None:
                yield raw
                continue
            for at in range(len(raw)):
                if at:
                    yield Wait(drip.amount)
                yield raw[at : at + 1]
        if hangup:
            yield Ending.HANG_UP

    def _frames(self, frame: Frame, chosen: dict[str, Fault], *, hangup: bool) -> list[bytes]:
        """Return the bytes of all frames that are sent for the reply *frame*."""
        random = self._random
        if self._inject(chosen, "id"):
            frame = frame._replace(controller_id=(frame.controller_id + random.randrange(1, 256)) & 0xFF)
        frames = [frame.encode(start_up=False)]
        if not hangup and self._inject(chosen, "double"):
            frames *= 2
        # Flip and cut damage the same frame, so that a doubled reply still has one good copy.
        victim = random.randrange(len(frames))
        if self._inject(chosen, "flip"):
            frames[victim] = _damage.flip(frames[victim], random)
        if hangup or self._inject(chosen, "cut"):
            frames[victim] = _damage.cut(frames[victim], random)
        # In captures the torn frame comes first and a good frame follows at once. A reply without data has nothing that
        # could be torn.
        if not hangup and frame.data and self._inject(chosen, "tear"):
            frames.insert(0, _damage.tear(frame, self._last_data.get(frame.command), random))
        return frames

    def _foreign(self) -> bytes:
        """Return a reply to a request of another master, with the present state of the controller."""
        if self._random.random() < 0.5:
            frame = Frame(0, CommandCode.READ_REALTIME, self._tracer.realtime().to_bytes())
        else:
            frame = Frame(0, CommandCode.MANUAL_CONTROL, LoadState(self._tracer.load_on).to_bytes())
        return frame.encode(start_up=False)

    def _draw(self, faults: list[Fault]) -> dict[str, Fault]:
        """Return the faults of the next request or connection, by kind."""
        chosen: dict[str, Fault] = {}
        # Draw for every fault, also if an earlier one already loses the request: the number of draws per request is
        # then constant.
        for fault in faults:
            if self._random.random() < fault.probability:
                chosen.setdefault(fault.kind, fault)
        return chosen

    def _inject(self, chosen: dict[str, Fault], kind: str) -> Fault | None:
        """Return the fault of a kind if it was drawn, and count it as injected."""
        fault = chosen.get(kind)
        # Counted here and not when it is drawn: a request that is dropped has no late reply.
        if fault is not None:
            self._injected[kind] += 1
        return fault
