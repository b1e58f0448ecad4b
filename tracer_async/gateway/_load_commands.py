"""Load commands from MQTT: one at a time for each controller, the newest wins, none is followed late."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from aiomqtt import Message

from tracer_async.gateway._limited_log import LimitedLog
from tracer_async.gateway._load_outcome import failure_text
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
    """When it arrived, on the event loop's clock."""
    expires: float
    """When it must not be followed any more, on the event loop's clock."""


def _parse(message: Message, name: str, now: float) -> _Command:
    """Return the command for the controller *name*. Raises ValueError with the reason why it must be ignored."""
    if message.retain:
        raise ValueError("it is retained, so it may be of any age; publish commands without the retain flag")
    if message.payload not in (b"ON", b"OFF"):
        raise ValueError(f"the payload must be ON or OFF, not {message.payload[:40]!r}")
    # The broker has subtracted the time that it has kept the message.
    left = getattr(message.properties, "MessageExpiryInterval", None)
    wait = _MAX_WAIT if left is None else min(_MAX_WAIT, left)
    return _Command(name, message.payload == b"ON", now, now + wait)


class LoadCommands:
    """Follows commands. *failed* is called with the controller's name when one failed."""

    def __init__(self, controllers: Controllers, failed: Callable[[str], None]) -> None:
        self._controllers = controllers
        self._failed = failed
        self._suspended_until = 0.0
        # When `watch` ran last, on the monotonic clock and in seconds since 1970.
        self._seen = time.monotonic(), time.time()
        self._waiting: dict[str, _Command] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        # About messages. A client that floods a topic must not fill the disk.
        self._log = LimitedLog(_log, _MAX_LINES, "mqtt: too many commands")

    def take(self, message: Message, name: str) -> None:
        """Check a command for the controller *name*, and follow it. Returns at once, so that none waits before."""
        now = asyncio.get_running_loop().time()
        try:
            controller = next((each for each in self._controllers.all() if each.name == name), None)
            if controller is None:
                raise ValueError("there is no such controller")
            if not controller.switchable:
                raise ValueError("the gateway only listens to this controller")
            if now < self._suspended_until or self._idle() > _MAX_WAIT:
                raise ValueError("the gateway was suspended, so the command may be late")
            command = _parse(message, name, now)
        except ValueError as error:
            self._log.log(logging.WARNING, "mqtt: ignored a command on %r: %s", message.topic.value, error)
        else:
            self._post(command)

    async def watch(self) -> NoReturn:
        """Notice when this process was suspended. A command that arrives just then may have waited in the socket.

        Either this or `take` is first to run after that, so both look at the clocks.
        """
        while True:
            self._seen = time.monotonic(), time.time()
            await asyncio.sleep(1)
            if self._idle() > _MAX_WAIT:
                self._suspended_until = asyncio.get_running_loop().time() + 1

    def _idle(self) -> float:
        """Seconds since `watch` ran. The monotonic clock of Linux stops while the machine sleeps."""
        monotonic, wall = self._seen
        return max(time.monotonic() - monotonic, time.time() - wall)

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
        """Drop what waits, and cancel what is in progress."""
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
        now = asyncio.get_running_loop().time()
        if now >= command.expires:
            _log.warning(
                "%s: ignored the command to switch the load %s: it is late, it waited %.1f s",
                *_words(command),
                now - command.received,
            )
            return
        try:
            await self._controllers.set_load(command.name, command.on, within=command.expires - now)
        except KeyError as error:
            _log.warning("%s", failure_text(command.name, command.on, error))
        except Exception as error:  # noqa: BLE001  # whatever a client raises is reported, and the next command is tried
            _log.warning("%s", failure_text(command.name, command.on, error))
            self._failed(command.name)


def _words(command: _Command) -> tuple[str, str]:
    return command.name, "on" if command.on else "off"
