"""The controller of the session target: it answers each request at most once, in order, and knows what it answered."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from tracer_async.protocol import LATE_REPLY_WINDOW, CommandCode, Frame, FrameDecoder, RealtimeData

__all__ = ["READING", "Asked", "ModelController"]

READING = RealtimeData.from_bytes(bytes.fromhex("DC04500D000000005904980500000029000000013A760100"))


@dataclass(eq=False)
class Asked:
    """A request as it came from the wire, and what became of it."""

    number: int
    frame: Frame
    at: float
    done_at: float | None = None
    """When the controller carried it out."""
    answer: bytes | None = None
    """The data of the reply, if a well-formed one was sent."""


class ModelController:
    """What a controller does by the protocol, at the moments that the fuzzer chooses.

    A reading carries its request's number in a byte that nobody interprets. The other replies carry it as controller
    ID, unless the controller copies the ID of the request.
    """

    def __init__(self, now: float, *, copies_id: bool) -> None:
        self.asked: list[Asked] = []
        self.load = False
        self._was = {False: now, True: float("-inf")}
        self._copies_id = copies_id
        self._unanswered: deque[Asked] = deque()

    def request(self, wire: bytes, now: float) -> Asked:
        """Take the bytes of exactly one request."""
        *noise, frame = FrameDecoder().feed(wire)
        assert isinstance(frame, Frame), f"not a request: {wire.hex()}"
        assert not any(isinstance(event, Frame) for event in noise), "two requests at once"
        asked = Asked(len(self.asked), frame, now)
        self.asked.append(asked)
        self._unanswered.append(asked)
        return asked

    def reply(
        self, now: float, *, lost: int = 0, never_received: bool = False, obeys: bool = True, malformed: bool = False
    ) -> tuple[Asked, Frame] | None:
        """Answer the oldest request that is still open.

        The *lost* ones before it get no reply: they were carried out, or were never received.
        """
        # A reply after the window is outside the promise of the protocol module.
        while self._unanswered and now >= self._unanswered[0].at + LATE_REPLY_WINDOW:
            self._unanswered.popleft()
        for _ in range(min(lost, len(self._unanswered) - 1)):
            asked = self._unanswered.popleft()
            if not never_received:
                self._carry_out(asked, now, obeys=obeys)
        if not self._unanswered:
            return None
        asked = self._unanswered.popleft()
        data = self._carry_out(asked, now, obeys=obeys)
        if malformed:
            data = data[:-1] or b"\x02"
        else:
            asked.answer = data
        request = asked.frame
        controller_id = request.controller_id if self._copies_id else 0x80 | asked.number
        return asked, Frame(controller_id, request.command, data)

    def is_open(self, asked: Asked) -> bool:
        """Return whether *asked* has not been answered yet, and still may be."""
        return asked in self._unanswered

    def was_since(self, load: bool, since: float) -> bool:
        """Return whether the load has been in a state at any moment from *since* on."""
        return self.load is load or self._was[load] >= since

    def _carry_out(self, asked: Asked, now: float, *, obeys: bool) -> bytes:
        asked.done_at = now
        if asked.frame.command == CommandCode.READ_REALTIME:
            return READING._replace(load_on=self.load, reserved=bytes((0, 0, asked.number, 0))).to_bytes()
        if asked.frame.command == CommandCode.MANUAL_CONTROL:
            if obeys:
                self._was[self.load] = now
                self.load = asked.frame.data == b"\x01"
            return bytes((self.load,))
        return b""
