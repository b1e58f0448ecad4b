"""The hub: polls each controller once, or listens to it, and hands each reading to every output.

A `Fleet` polls, and a `ListenedLine` listens. Each reading becomes one `ControllerEvent`. Energy is counted before the
event is handed out, so that every output receives the same totals. An output that fails is started again; it never
stops the hub.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from tracer_async import Fleet, LoadState, Reading, TracerClient
from tracer_async.gateway._clock import uptime
from tracer_async.gateway._limited_log import LimitedLog
from tracer_async.gateway._load_switch import CONNECT_SECONDS, reading_after_switch, switch_load
from tracer_async.gateway._member import FENCE_SECONDS, Member
from tracer_async.gateway.config import ControllerConfig
from tracer_async.gateway.energy_ledger import EnergyLedger
from tracer_async.gateway.events import Controller, ControllerEvent
from tracer_async.gateway.listening import ListenedLine, ListensOnlyError
from tracer_async.gateway.output import Output, OutputState
from tracer_async.gateway.output_task import OutputTask

__all__ = ["Hub"]

_log = logging.getLogger(__name__)

# Seconds without any reading, good or failed, beyond the time that one may take, after which polling has stopped.
_STALLED_SECONDS = 30.0
# Lines of the log about switched loads, in a minute. A client that floods commands must not fill the disk.
_MAX_LINES = 30


class Hub:
    """Connects controllers and outputs; it implements `Controllers`. Everything may be changed while it runs."""

    def __init__(self, ledger: EnergyLedger) -> None:
        self._ledger = ledger
        self._fleet = Fleet()
        self._members: dict[str, Member] = {}
        self._outputs: dict[Output, OutputTask] = {}
        self._last_reading = time.monotonic()
        self._switches = LimitedLog(_log, _MAX_LINES, "loads are switched too often")

    # Changes

    def add(self, name: str, config: ControllerConfig) -> None:
        """Begin to poll a controller, or to listen to it.

        Raises ValueError if there is one of that name, and what `Fleet.add` or `ListenedLine` raises.
        """
        if name in self._members:
            raise ValueError(f"there is a controller {name} already")
        member = self._members[name] = Member(name, config, self._open(name, config))
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
            fence=FENCE_SECONDS,
            connect_timeout=CONNECT_SECONDS,
        )

    async def _close(self, member: Member) -> None:
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
        closed = [member for member in changed if not member.keeps_line(controllers.get(member.controller.name))]
        for member in closed:
            del self._members[member.controller.name]
        # All lines are closed before one is opened: two controllers may have exchanged their ports.
        await asyncio.gather(*map(self._close, closed))
        for member in changed:
            if not member.keeps_id(controllers.get(member.controller.name)):
                self._forget(member)
        for name, config in controllers.items():
            if name not in self._members:
                self.add(name, config)
            elif self._members[name].config != config:
                self._members[name].rename(config)
                for output in self._outputs.values():
                    output.add(self._members[name].controller)
        self._members = {name: self._members[name] for name in controllers}

    def _forget(self, member: Member) -> None:
        for output in self._outputs.values():
            output.remove(member.controller)

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
        """End *output*, and let it deliver what it holds, for at most 3 s. It is handed events until `detach`.

        Raises KeyError if it has not been started.
        """
        await self._outputs[output].stop()

    def detach(self, output: Output) -> None:
        """Hand nothing more to *output*. Raises KeyError if it has not been started."""
        del self._outputs[output]

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
        longest = min(member.controller.event_gap for member in self._members.values())
        return time.monotonic() - self._last_reading <= longest + _STALLED_SECONDS

    def _receive(self, name: str, reading: Reading) -> None:
        member = self._members.get(name)
        if member is not None:
            self._handle(member, reading)

    def _handle(self, member: Member, reading: Reading) -> None:
        monotonic = uptime()
        self._last_reading = time.monotonic()
        controller = member.controller
        if not member.accepts(reading):
            return
        since = member.since(reading)
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

    def latest(self, name: str) -> ControllerEvent | None:
        """Return the last event of a controller; None before the first one. Raises KeyError if there is none."""
        return self._members[name].latest

    def outputs(self) -> list[OutputState]:
        """Return the state of the energy ledger and of each output."""
        return [self._ledger.state, *(output.state for output in self._outputs)]

    async def set_load(self, name: str, on: bool, *, within: float) -> LoadState:
        """See `Controllers.set_load`."""
        member = self._members[name]
        if isinstance(member.client, ListenedLine):
            raise ListensOnlyError(name)
        state = await switch_load(member.client, name, on, within=within)
        self._switches.log(logging.INFO, "%s: the load is %s", name, state)
        reading = await reading_after_switch(member.client)
        if reading is not None and self._members.get(name) is member:
            self._handle(member, reading)
        return state
