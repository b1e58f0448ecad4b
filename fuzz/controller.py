"""The controller of the link target: it answers each request at most once, in order, and knows what it answered."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from tracer_async.protocol import HORIZON, CommandCode, Frame, FrameDecoder, RealtimeData

__all__ = ["Asked", "ModelController"]

_READING = RealtimeData.from_bytes(bytes.fromhex("DC04500D000000005904980500000029000000013A760100"))


class Asked(NamedTuple):
    """A request as it came from the wire."""

    number: int
    frame: Frame
    at: float


class ModelController:
    """What a controller does by the protocol, at the moments that the fuzzer chooses.

    A reply carries its request's number as controller ID, which nobody looks at: so each answer can be traced.
    """

    def __init__(self, now: float) -> None:
        self.asked: list[Asked] = []
        self.load = False
        self.was = {False: now, True: float("-inf")}
        """When the load was last in each state, by now past."""
        self._unanswered: deque[Asked] = deque()
        self._replies: dict[Frame, Asked] = {}

    def request(self, wire: bytes, now: float) -> Asked:
        """Take the bytes of exactly one request."""
        *noise, frame = FrameDecoder().feed(wire)
        assert isinstance(frame, Frame), f"not a request: {wire.hex()}"
        assert not any(isinstance(event, Frame) for event in noise), "two requests at once"
        asked = Asked(len(self.asked), frame, now)
        self.asked.append(asked)
        self._unanswered.append(asked)
        return asked

    def reply(self, now: float, *, lost: int, obeys: bool, malformed: bool) -> bytes:
        """Answer the oldest request that is still open, behind *lost* that it works off without a reply on the wire."""
        # What is later than the horizon is beyond what the protocol promises.
        while self._unanswered and now >= self._unanswered[0].at + HORIZON:
            self._unanswered.popleft()
        for _ in range(min(lost, len(self._unanswered) - 1)):
            self._carry_out(self._unanswered.popleft(), now, obeys=obeys)
        if not self._unanswered:
            return b""
        asked = self._unanswered.popleft()
        data = self._carry_out(asked, now, obeys=obeys)
        if malformed:
            data = data[:-1] or b"\x02"
        reply = Frame(asked.number & 0xFF, asked.frame.command, data)
        self._replies[reply] = asked
        return reply.encode(start_up=False)

    def trace(self, reply: Frame) -> Asked | None:
        """The request that *reply*, which has come through, belongs to; None the second time, or if it is foreign."""
        return self._replies.pop(reply, None)

    @property
    def open(self) -> list[Asked]:
        """The requests whose replies have not come through yet, and still could."""
        return [*self._unanswered, *self._replies.values()]

    def _carry_out(self, asked: Asked, now: float, *, obeys: bool) -> bytes:
        if asked.frame.command == CommandCode.READ_REALTIME:
            return _READING._replace(load_on=self.load).to_bytes()
        if asked.frame.command == CommandCode.MANUAL_CONTROL:
            if obeys:
                self.was[self.load] = now
                self.load = asked.frame.data == b"\x01"
            return bytes((self.load,))
        return b""

    def was_since(self, load: bool, since: float) -> bool:
        """Whether the load has been in a state at any moment from *since* on."""
        return self.load is load or self.was[load] >= since
