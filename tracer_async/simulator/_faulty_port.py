"""A port on which things go wrong, without I/O: it brings about what `Faults` asks for.

On its way a reply meets the faults in this order: the request is lost, or has to wait (half-open, silence, drop,
stall); the controller acts on it, once; the reply waits (late, flood), is made (id, double), damaged (flip, cut or
hangup, tear), joined by others (foreign, stray) and sent (drip).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tracer_async.protocol import OVERHEAD, CommandCode, Event, Frame, FrameDecoder, LoadState
from tracer_async.simulator import _damage
from tracer_async.simulator._port import Ending, Lose, Port, SimulatedPort, Step, Wait
from tracer_async.simulator.device import SimulatedTracer
from tracer_async.simulator.faults import FAULT_KINDS, Fault, Faults

__all__ = ["FaultyPort", "port_of"]

_FLOOD_CHUNK = 4096


def port_of(tracer: SimulatedTracer, faults: Faults | None) -> Port:
    """Return a new port of *tracer*, with faults if there are any."""
    return FaultyPort(tracer, faults) if faults is not None and faults.faults else SimulatedPort(tracer)


class FaultyPort:
    """One wire to a simulated controller, with faults on it; `Port` says what its methods do.

    Steps are made when they are asked for: a controller acts on a request, once, when all steps before it have been
    taken. So what waited behind a late reply is answered with fresh data.
    """

    __slots__ = ("_connect_faults", "_decoder", "_injected", "_older", "_random", "_request_faults", "_tracer")

    def __init__(self, tracer: SimulatedTracer, faults: Faults) -> None:
        self._tracer = tracer
        self._decoder = FrameDecoder()
        self._random = faults.next_random()
        self._injected = faults.injected
        self._connect_faults = [fault for fault in faults.faults if FAULT_KINDS[fault.kind].on_connect]
        self._request_faults = [fault for fault in faults.faults if not FAULT_KINDS[fault.kind].on_connect]
        # The data of the last reply to each command.
        self._older: dict[int, bytes] = {}

    @property
    def pending(self) -> int:
        """See `Port`."""
        return self._decoder.pending

    def greet(self) -> Iterator[Step]:
        """See `Port`."""
        chosen = self._draw(self._connect_faults)
        if banner := self._hit(chosen, "banner"):
            yield f"{banner.text}\r\n".encode()
        if self._hit(chosen, "refuse"):
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
                    if isinstance(step, Lose | Ending):
                        # What was received with it is gone too.
                        self._decoder = FrameDecoder()
                        return

    def _serve(self, request: Frame) -> Iterator[Step]:
        chosen = self._draw(self._request_faults)
        if self._hit(chosen, "half-open"):
            yield Ending.HALF_OPEN
            return
        if silence := self._hit(chosen, "silence"):
            yield Lose(silence.amount)
            return
        if self._hit(chosen, "drop"):
            return
        if stall := self._hit(chosen, "stall"):
            yield Wait(stall.amount)
        reply = self._tracer.answer(request)
        if reply is None:
            return
        frame = _damage.frame_in(reply)
        if frame is None or len(reply) != OVERHEAD + len(frame.data):
            yield reply  # a tracer of somebody's own, which damages its replies itself
            return
        if chosen:
            yield from self._send(frame, chosen)
        else:
            yield reply
        self._older[frame.command] = frame.data

    def _send(self, frame: Frame, chosen: dict[str, Fault]) -> Iterator[Step]:
        random = self._random
        if late := self._hit(chosen, "late"):
            yield Wait(late.amount)
        if flood := self._hit(chosen, "flood"):
            left = int(flood.amount)
            while left > 0:
                yield _damage.garbage(min(left, _FLOOD_CHUNK), random)
                left -= _FLOOD_CHUNK
        hangup = self._hit(chosen, "hangup") is not None
        frames: list[bytes | None] = [*self._frames(frame, chosen, hangup=hangup)]
        if self._hit(chosen, "foreign"):
            frames.insert(0 if hangup or random.random() < 0.5 else len(frames), None)
        is_stray = self._hit(chosen, "stray") is not None
        drip = self._hit(chosen, "drip")
        for made in frames:
            # Made at the last moment: another master's reply is no older than the wire makes it.
            raw = self._foreign() if made is None else made
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
        """Return the bytes of all frames that the reply *frame* becomes."""
        random = self._random
        if self._hit(chosen, "id"):
            frame = frame._replace(controller_id=(frame.controller_id + random.randrange(1, 256)) & 0xFF)
        frames = [frame.encode(start_up=False)]
        if not hangup and self._hit(chosen, "double"):
            frames *= 2
        victim = random.randrange(len(frames))
        if self._hit(chosen, "flip"):
            frames[victim] = _damage.flip(frames[victim], random)
        if hangup or self._hit(chosen, "cut"):
            frames[victim] = _damage.cut(frames[victim], random)
        if not hangup and frame.data and self._hit(chosen, "tear"):
            frames.insert(0, _damage.tear(frame, self._older.get(frame.command), random))
        return frames

    def _foreign(self) -> bytes:
        """Return a reply that nobody here asked for; the controller's own state, without a request to it."""
        if self._random.random() < 0.5:
            frame = Frame(0, CommandCode.READ_REALTIME, self._tracer.realtime().to_bytes())
        else:
            frame = Frame(0, CommandCode.MANUAL_CONTROL, LoadState(self._tracer.load_on).to_bytes())
        return frame.encode(start_up=False)

    def _draw(self, faults: list[Fault]) -> dict[str, Fault]:
        """Return the faults that strike this time, by kind; the same number of draws each time."""
        chosen: dict[str, Fault] = {}
        for fault in faults:
            if self._random.random() < fault.probability:
                chosen.setdefault(fault.kind, fault)
        return chosen

    def _hit(self, chosen: dict[str, Fault], kind: str) -> Fault | None:
        """Return the fault of a kind if it strikes, and count it."""
        fault = chosen.get(kind)
        if fault is not None:
            self._injected[kind] += 1
        return fault
