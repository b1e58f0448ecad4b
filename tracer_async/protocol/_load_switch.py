"""One change of the load switch: the command, and the reading that verifies it if the answer is not certain."""

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
    """The steps of ``set_load``. It takes the outcome of each step and selects the next one.

    1. Send the command. An unambiguous answer with the requested state ends the switch successfully.
    2. After any other answer, and after a timeout, read the state back. The requested state ends the switch
       successfully.
    3. With the other state, an unambiguous answer in step 1 means that the controller refuses. Without one the command
       may not have arrived: repeat it, while attempts are left.
    """

    __slots__ = ("_answered", "_attempts", "_name", "_reading", "_sent", "_step", "load")

    def __init__(self, name: str, load: LoadState, attempts: int) -> None:
        self._name = name
        self.load: LoadState = load
        self._attempts = attempts
        """Number of times that the command may still be sent."""
        self._step: Command[Any] = ManualControl(load)
        self._answered = False
        """Whether the command has an answer that is not ambiguous, since it was sent last."""
        self._reading: RealtimeData | None = None
        self._sent = False

    @property
    def step(self) -> Command[Any]:
        """The command or the reading to send now."""
        return self._step

    def sent(self) -> None:
        """Note that the step was sent."""
        self._sent = True
        if self._step is not _READ:
            self._attempts -= 1
            # What came before says nothing about this attempt.
            self._answered = False
            self._reading = None

    def after(self, outcome: Answer[Any] | TracerError) -> Answer[LoadState] | TracerError | None:
        """Take the outcome of the present step. Return the outcome of the switch, or None if there is another step."""
        if self._step is _READ:
            return self._after_reading(outcome)
        if isinstance(outcome, Answer):
            self._answered = not outcome.ambiguous
            # An ambiguous answer can be a copy of the reply to an earlier switch, which says nothing about this one.
            if outcome.value is self.load and not outcome.ambiguous:
                return outcome
        elif not self._sent:
            return self._never_sent(outcome)
        elif isinstance(outcome, ResponseTimeoutError | MalformedReplyError | LinkLostError):
            pass  # the command may have been executed
        else:
            return self._unknown(outcome)
        self._step = _READ
        return None

    def _never_sent(self, error: TracerError) -> TracerError:
        # Nothing was sent, so the load is unchanged. The error of the connection says that best.
        if isinstance(error, LinkError):
            return error
        return LoadUnknownError(self._name, bool(self.load), sent=False, cause=error)

    def _unknown(self, error: TracerError) -> TracerError:
        return LoadUnknownError(self._name, bool(self.load), self._reading, answered=self._answered, cause=error)

    def _after_reading(self, outcome: Answer[Any] | TracerError) -> Answer[LoadState] | TracerError | None:
        wanted = bool(self.load)
        if not isinstance(outcome, Answer):
            return self._unknown(outcome)
        reading: RealtimeData = outcome.value
        self._reading = reading
        if reading.load_on == wanted:
            return outcome._replace(value=self.load)
        # The controller has received the command, because it has answered, but it did not switch the load.
        if self._answered:
            return LoadRefusedError(self._name, wanted, reading)
        if not self._attempts:
            return LoadUnknownError(self._name, wanted, reading)
        self._step = ManualControl(self.load)
        return None
