"""Load commands from MQTT: one at a time for each controller, the newest wins, none is followed late."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from aiomqtt import Message

from tracer_async.gateway._clock import uptime
from tracer_async.gateway._limited_log import LimitedLog
from tracer_async.gateway._load_outcome import failure_text
from tracer_async.gateway._stalls import Stalls
from tracer_async.gateway.output import Controllers

__all__ = ["LoadCommands"]

_log = logging.getLogger(__name__)

# Seconds after its arrival in which a command may be sent.
_MAX_WAIT = 5.0
# Lines of the log about messages, in a minute.
_MAX_LINES = 30


@dataclass(frozen=True, slots=True)
class _Command:
    """A wanted state of the load, and until when it may be followed."""

    name: str
    on: bool
    received: float
    """When it arrived, by `uptime`, or earlier if it may have waited since then."""
    expires: float
    """When it must not be followed any more, by `uptime`."""


def _parse(message: Message, name: str, waited: float) -> _Command:
    """Return the command for the controller *name*, which may have waited some seconds before it was read.

    Raises ValueError with the reason why it must be ignored.
    """
    if message.retain:
        raise ValueError("it is retained, so it may be of any age; publish commands without the retain flag")
    if message.payload not in (b"ON", b"OFF"):
        raise ValueError(f"the payload must be ON or OFF, not {message.payload[:40]!r}")
    # The broker has subtracted the time that it has kept the message.
    left = getattr(message.properties, "MessageExpiryInterval", None)
    wait = _MAX_WAIT if left is None else min(_MAX_WAIT, left)
    if 0 < waited >= wait:
        raise ValueError(f"the gateway was suspended or blocked, so the command may be {waited:.1f} s old")
    received = uptime() - waited
    return _Command(name, message.payload == b"ON", received, received + wait)


class LoadCommands:
    """Follows commands. *failed* is called with the controller's name when one failed."""

    def __init__(self, controllers: Controllers, failed: Callable[[str], None]) -> None:
        self._controllers = controllers
        self._failed = failed
        self._stalls = Stalls()
        self._waiting: dict[str, _Command] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        # About messages. A client that floods a topic must not fill the disk.
        self._log = LimitedLog(_log, _MAX_LINES, "mqtt: too many commands")
        # About commands that failed. Those of the messages do not hide them.
        self._outcomes = LimitedLog(_log, _MAX_LINES, "mqtt: too many commands failed")

    def take(self, message: Message, name: str) -> None:
        """Check a command for the controller *name*, and follow it. Returns at once, so that none waits before."""
        try:
            controller = next((each for each in self._controllers.all() if each.name == name), None)
            if controller is None:
                raise ValueError("there is no such controller")
            if not controller.switchable:
                raise ValueError("the gateway only listens to this controller")
            command = _parse(message, name, self._stalls.waited())
        except ValueError as error:
            self._log.log(logging.WARNING, "mqtt: ignored a command on %r: %s", message.topic.value, error)
        else:
            self._post(command)

    async def watch(self) -> NoReturn:
        """Notice when this process does not run. A command that arrives just then waits in the socket."""
        await self._stalls.watch()

    def _post(self, command: _Command) -> None:
        """Follow *command* after the one in progress, in place of one that is still waiting."""
        replaced = self._waiting.get(command.name)
        if replaced is not None:
            text = "%s: the command to switch the load %s is replaced by a newer one"
            self._log.log(logging.INFO, text, *_words(replaced))
        self._waiting[command.name] = command
        if command.name not in self._tasks:
            self._tasks[command.name] = asyncio.create_task(self._follow(command.name))

    async def aclose(self) -> None:
        """Drop what waits, and cancel what is in progress. The log says what becomes of each command."""
        for command in self._waiting.values():
            _log.warning("%s: the load was not switched %s: the MQTT output was stopped", *_words(command))
        self._waiting.clear()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, name: str) -> None:
        try:
            while (command := self._waiting.pop(name, None)) is not None:
                await self._switch(command)
        finally:
            del self._tasks[name]

    async def _switch(self, command: _Command) -> None:
        now = uptime()
        if now >= command.expires:
            self._outcomes.log(
                logging.WARNING,
                "%s: ignored the command to switch the load %s: it is late, it waited %.1f s",
                *_words(command),
                now - command.received,
            )
            return
        try:
            await self._controllers.set_load(command.name, command.on, within=command.expires - now)
        except KeyError as error:
            self._outcomes.log(logging.WARNING, "%s", failure_text(command.name, command.on, error))
        except Exception as error:  # noqa: BLE001  # whatever a client raises is reported, and the next command is tried
            self._outcomes.log(logging.WARNING, "%s", failure_text(command.name, command.on, error))
            self._failed(command.name)


def _words(command: _Command) -> tuple[str, str]:
    return command.name, "on" if command.on else "off"
