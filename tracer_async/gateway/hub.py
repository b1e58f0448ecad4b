"""The hub: polls each controller once, or listens to it, and hands each reading to every output.

A `Fleet` polls, and a `ListenedLine` listens. Each reading becomes one `ControllerEvent`. Energy is counted before the
event is handed out, so that every output receives the same totals. An output that fails is started again; it never
stops the hub.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Mapping
from math import inf

from tracer_async import Fleet, LoadState, Reading, TracerClient, TracerError
from tracer_async.gateway._clock import uptime
from tracer_async.gateway._limited_log import LimitedLog
from tracer_async.gateway.config import ControllerConfig
from tracer_async.gateway.energy_ledger import EnergyLedger
from tracer_async.gateway.events import Controller, ControllerEvent
from tracer_async.gateway.listening import ListenedLine, ListensOnlyError, silence_limit
from tracer_async.gateway.output import Output, OutputState
from tracer_async.gateway.output_task import OutputTask
from tracer_async.protocol import LATE_REPLY_WINDOW

__all__ = ["Hub"]

_log = logging.getLogger(__name__)

# Seconds without any reading, good or failed, beyond the time that one may take, after which polling has stopped.
_STALLED_SECONDS = 30.0
# Lines of the log about the readings of a controller, in a minute.
_MAX_LINES = 20


class _Member:
    """One controller, and what is known about it."""

    __slots__ = ("client", "config", "controller", "latest", "log")

    def __init__(self, name: str, config: ControllerConfig, client: TracerClient | ListenedLine) -> None:
        self.controller = _controller(name, config)
        self.config = config
        self.client = client
        self.latest: ControllerEvent | None = None
        # A controller that goes offline and online with each reading must not fill the disk.
        self.log = LimitedLog(_log, _MAX_LINES, f"{name} changes too often")


class Hub:
    """Connects controllers and outputs; it implements `Controllers`. Everything may be changed while it runs."""

    def __init__(self, ledger: EnergyLedger) -> None:
        self._ledger = ledger
        self._fleet = Fleet()
        self._members: dict[str, _Member] = {}
        self._outputs: dict[Output, OutputTask] = {}
        self._last_reading = time.monotonic()

    # Changes

    def add(self, name: str, config: ControllerConfig) -> None:
        """Begin to poll a controller, or to listen to it.

        Raises ValueError if there is one of that name, and what `Fleet.add` or `ListenedLine` raises.
        """
        if name in self._members:
            raise ValueError(f"there is a controller {name} already")
        member = self._members[name] = _Member(name, config, self._open(name, config))
        self._last_reading = time.monotonic()
        for output in self._outputs.values():
            output.add(member.controller)

    def _open(self, name: str, config: ControllerConfig) -> TracerClient | ListenedLine:
        if config.listen is not None:
            return ListenedLine(name, config.listen, config.interval, lambda reading: self._receive(name, reading))
        return self._fleet.add(
            config.url or "",
            name=name,
            interval=config.interval,
            controller_id=config.controller_id,
            timeout=config.timeout,
            retries=config.retries,
        )

    async def _close(self, member: _Member) -> None:
        if isinstance(member.client, ListenedLine):
            await member.client.aclose()
        else:
            await self._fleet.remove(member.controller.name)

    async def remove(self, name: str) -> None:
        """Stop polling a controller, and tell the outputs that it is gone. Raises KeyError if there is none."""
        member = self._members.pop(name)
        try:
            await self._close(member)
        finally:
            self._forget(member)

    async def apply(self, controllers: Mapping[str, ControllerConfig]) -> None:
        """Make *controllers* the polled ones. A controller that did not change keeps its connection.

        Outputs are told that a controller is gone only if its name or its ID is gone. Raises what `Fleet.add` raises.
        """
        changed = [member for name, member in self._members.items() if controllers.get(name) != member.config]
        closed = [member for member in changed if not _has_same_line(member, controllers)]
        for member in closed:
            del self._members[member.controller.name]
        # All lines are closed before one is opened: two controllers may have exchanged their ports.
        await asyncio.gather(*map(self._close, closed))
        for member in changed:
            name, config = member.controller.name, controllers.get(member.controller.name)
            if config is None or _controller(name, config).id != member.controller.id:
                self._forget(member)
        for name, config in controllers.items():
            if name not in self._members:
                self.add(name, config)
            elif self._members[name].config != config:
                self._rename(self._members[name], config)
        self._members = {name: self._members[name] for name in controllers}

    def _forget(self, member: _Member) -> None:
        for output in self._outputs.values():
            output.remove(member.controller)

    def _rename(self, member: _Member, config: ControllerConfig) -> None:
        """Give a controller another title or ID, on the connection that it has."""
        before, member.config = member.controller, config
        member.controller = _controller(before.name, config)
        if member.latest is not None:
            # The totals of another ID are not those in the event.
            same = before.id == member.controller.id
            member.latest = dataclasses.replace(member.latest, controller=member.controller) if same else None
        for output in self._outputs.values():
            output.add(member.controller)

    def start(self, output: Output) -> None:
        """Begin to hand events to *output*, the latest one of each controller first.

        Raises ValueError if it has been started already.
        """
        if output in self._outputs:
            raise ValueError(f"the output {output.state.name} has been started already")
        task = self._outputs[output] = OutputTask(output)
        for member in self._members.values():
            task.add(member.controller)
            if member.latest is not None:
                task.publish(member.latest)
        task.start()

    async def stop(self, output: Output) -> None:
        """Hand nothing more to *output*; let it deliver what it holds, for at most 3 s.

        Raises KeyError if it is not running.
        """
        await self._outputs.pop(output).stop()

    async def run(self) -> None:
        """Poll, until cancelled or closed."""
        async for name, reading in self._fleet:
            self._receive(name, reading)

    async def aclose(self) -> None:
        """Stop all polling and listening. Outputs are stopped by `stop`."""
        lines = [member.client for member in self._members.values() if isinstance(member.client, ListenedLine)]
        await asyncio.gather(self._fleet.aclose(), *(line.aclose() for line in lines))

    def is_polling(self) -> bool:
        """Return whether readings come. A controller that does not answer gives readings too, with an error."""
        if not self._members:
            return True
        longest = min(_longest_wait(member.config) for member in self._members.values())
        return time.monotonic() - self._last_reading <= longest + _STALLED_SECONDS

    def _receive(self, name: str, reading: Reading) -> None:
        member = self._members.get(name)
        if member is not None:
            self._handle(member, reading)

    def _handle(self, member: _Member, reading: Reading) -> None:
        monotonic = uptime()
        self._last_reading = time.monotonic()
        controller = member.controller
        before = member.latest
        if before is not None and reading.data is not None and before.reading.data is reading.data:
            return  # one answer for a poll and for `set_load`, which shared an exchange
        if _oldest(member.config) < reading.age < inf:
            member.log.log(logging.INFO, "%s: an answer of %.0f s ago is dropped", controller.name, reading.age)
            return
        since = before.since if before is not None and before.online == reading.ok else reading.time
        if before is None or before.online != reading.ok:
            if reading.ok:
                member.log.log(logging.INFO, "%s is online", controller.name)
            else:
                member.log.log(logging.WARNING, "%s is offline: %s", controller.name, reading.error)
        self._ledger.record(controller, reading, monotonic)
        event = ControllerEvent(
            controller,
            reading,
            since=since,
            monotonic=monotonic,
            energy=self._ledger.stored(controller.id),
            stats=member.client.stats,
        )
        member.latest = event
        for output in self._outputs.values():
            output.publish(event)

    # What outputs ask (see `Controllers`)

    def all(self) -> list[Controller]:
        """Return the configured controllers."""
        return [member.controller for member in self._members.values()]

    def config(self, name: str) -> ControllerConfig:
        """Return the configuration of a controller. Raises KeyError if there is none."""
        return self._members[name].config

    def latest(self, name: str) -> ControllerEvent | None:
        """Return the last event of a controller; None before the first one. Raises KeyError if there is none."""
        return self._members[name].latest

    def outputs(self) -> list[OutputState]:
        """Return the state of the energy ledger and of each output."""
        return [self._ledger.state, *(output.state for output in self._outputs)]

    async def set_load(self, name: str, on: bool) -> LoadState:
        """Switch the load of a controller, and publish a reading that shows it.

        Raises KeyError if there is no such controller, ListensOnlyError if the gateway only listens to it, and what
        `TracerClient.set_load` raises.
        """
        member = self._members[name]
        if isinstance(member.client, ListenedLine):
            raise ListensOnlyError(name)
        state = await member.client.set_load(on)
        _log.info("%s: the load is %s", name, state)
        # The switch is confirmed by now. A reading that fails is reported by the next poll.
        try:
            reading = await member.client.read()
        except TracerError:
            return state
        if self._members.get(name) is member:
            self._handle(member, reading)
        return state


def _controller(name: str, config: ControllerConfig) -> Controller:
    switchable = config.listen is None
    return Controller(name, config.title or name, config.id or name, config.interval, switchable=switchable)


def _longest_wait(config: ControllerConfig) -> float:
    """Return the seconds after which a controller has given a reading or an error."""
    if config.listen is not None:
        return silence_limit(config.interval)
    return config.interval + (config.retries + 1) * config.timeout


def _oldest(config: ControllerConfig) -> float:
    """Return the age in seconds from which a reading is not a present one any more.

    After a lost answer a client states ages of up to `LATE_REPLY_WINDOW` and the timeout. An answer is older than that
    if it has waited here while this process did not run.
    """
    return max(LATE_REPLY_WINDOW + 2 * config.timeout, 3 * config.interval)


def _has_same_line(member: _Member, controllers: Mapping[str, ControllerConfig]) -> bool:
    """Return whether a controller can keep its connection and its schedule."""
    config = controllers.get(member.controller.name)
    if config is None:
        return False
    nothing_else = {"title": None, "id": None}
    return config.model_copy(update=nothing_else) == member.config.model_copy(update=nothing_else)
