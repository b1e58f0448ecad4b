"""One switching of the load: the command, and the reading that verifies it where its answer proves nothing."""

from __future__ import annotations

from typing import Any

from tracer_async.errors import (
    LinkError,
    LinkLostError,
    LoadRefusedError,
    LoadUnknownError,
    MalformedReplyError,
    ResponseTimeoutError,
    TracerError,
)
from tracer_async.protocol._answer import Answer
from tracer_async.protocol.commands import Command, ManualControl, ReadRealtime
from tracer_async.protocol.values import LoadState, RealtimeData

__all__ = ["LoadSwitch"]

_READ = ReadRealtime()


class LoadSwitch:
    """The steps of ``set_load``, from outcome to outcome; it knows nothing of queues and times.

    A load that answers with the wanted state, in an answer that can belong to no other request, is switched. Whatever
    else comes, the state is read back. If that is the wanted one, the load is switched; if it is not, the command is
    repeated, unless an unambiguous answer has said that the controller refuses it.
    """

    __slots__ = ("_answer", "_attempts", "_name", "_reading", "_sent", "_step", "load")

    def __init__(self, name: str, load: LoadState, attempts: int) -> None:
        self._name = name
        self.load: LoadState = load
        self._attempts = attempts
        """How often the command may still be sent."""
        self._step: Command[Any] = ManualControl(load)
        self._answer: Answer[LoadState] | None = None
        self._reading: RealtimeData | None = None
        self._sent = False

    @property
    def step(self) -> Command[Any]:
        """The command or the reading that is to be sent now."""
        return self._step

    def sent(self) -> None:
        """Note that the step was sent."""
        self._sent = True
        if self._step is not _READ:
            self._attempts -= 1

    def after(self, outcome: Answer[Any] | TracerError) -> Answer[LoadState] | TracerError | None:
        """Take the outcome of a step; return how it all ended, or None: there is another step."""
        if self._step is _READ:
            return self._after_reading(outcome)
        if isinstance(outcome, Answer):
            self._answer = outcome
            if outcome.value is self.load and not outcome.ambiguous:
                return outcome
        elif not self._sent:
            return self._never_sent(outcome)
        elif isinstance(outcome, ResponseTimeoutError | MalformedReplyError | LinkLostError):
            self._answer = None  # the command may have been carried out all the same
        else:
            return self._unknown(outcome)
        self._step = _READ
        return None

    def _never_sent(self, error: TracerError) -> TracerError:
        if isinstance(error, LinkError):
            return error
        return LoadUnknownError(self._name, bool(self.load), sent=False, cause=error)

    def _unknown(self, error: TracerError) -> TracerError:
        return LoadUnknownError(self._name, bool(self.load), self._reading, cause=error)

    def _after_reading(self, outcome: Answer[Any] | TracerError) -> Answer[LoadState] | TracerError | None:
        wanted = bool(self.load)
        if not isinstance(outcome, Answer):
            return self._unknown(outcome)
        reading: RealtimeData = outcome.value
        self._reading = reading
        if reading.load_on == wanted:
            return outcome._replace(value=self.load)
        if self._answer is not None and not self._answer.ambiguous:
            return LoadRefusedError(self._name, wanted, reading)
        if not self._attempts:
            return LoadUnknownError(self._name, wanted, reading)
        self._step = ManualControl(self.load)
        return None
