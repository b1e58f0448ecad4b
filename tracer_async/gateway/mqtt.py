"""The MQTT output: readings, load commands, and device discovery for Home Assistant.

Readings are published with QoS 0 and the retain flag. TCP delivers them in order while the connection lasts, and after
a new connection the newest reading of every controller is published again, so QoS 1 would add a round trip without
saving anything. What changes rarely and has to arrive is published with QoS 1: discovery, deletions, and the state of
the gateway.

An old value is never shown as new. Readings expire in the broker three intervals after they arrived here, or later if
a slow answer needs it. The state is published before `online`, and `offline` is all that is published while a
controller does not answer. `online`, `offline` and the reason expire when the next event is overdue.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from aiomqtt import Client, MqttError, Will
from paho.mqtt.subscribeoptions import SubscribeOptions

from tracer_async.gateway._announcements import Announcements
from tracer_async.gateway._broker import (
    BrokerError,
    Outgoing,
    broker_connection,
    failure,
    publish,
    publish_all,
    subscribe,
)
from tracer_async.gateway._clock import uptime
from tracer_async.gateway._load_commands import LoadCommands
from tracer_async.gateway._mqtt_messages import OFFLINE, ONLINE, connection_message, state_message, whole_seconds
from tracer_async.gateway._rivals import Rivals
from tracer_async.gateway._topics import Topics
from tracer_async.gateway.config import MqttConfig
from tracer_async.gateway.events import Controller, ControllerEvent
from tracer_async.gateway.output import Controllers, LatestEvents, Output

__all__ = ["MqttOutput"]

_log = logging.getLogger(__name__)

_LEAVING = 1.5
# Events that are published together. A batch takes several turns of the event loop, whatever its size.
_BATCH = 100
# Seconds. Two gateways that take the session from each other do so at least once a minute.
_SHORT = 120.0


class MqttOutput(Output):
    """Publishes to one broker. `run` makes one connection; it raises when the connection ends."""

    def __init__(self, config: MqttConfig, controllers: Controllers, *, directory: Path) -> None:
        super().__init__("mqtt")
        self._config = config
        self._controllers = controllers
        self._topics = Topics.of(config)
        self._announcements = Announcements(config, self._topics, directory / "mqtt-topics.json")
        self._rivals = Rivals(self._topics, controllers)
        self._commands = LoadCommands(controllers, self._publish_again)
        self._events = LatestEvents()
        # What was published on each `connection` topic, on this connection, and when.
        self._shown: dict[str, tuple[float, str | None, float]] = {}
        self._connected_at: float | None = None
        self._short_connections = 0
        # The messages of one event are not mixed with those of another one.
        self._publishing = asyncio.Lock()

    # What the hub calls

    def publish(self, event: ControllerEvent) -> None:
        """Take an event. While there is no connection, only the newest of each controller is kept."""
        self._events.put(event)

    def add(self, controller: Controller) -> None:
        """Announce a controller."""
        self._announcements.add(controller)

    def remove(self, controller: Controller) -> None:
        """Remove a controller from Home Assistant and from the broker."""
        self._announcements.remove(controller)
        self._events.discard(controller.name)

    async def run(self) -> None:
        """Connect and deliver until cancelled. Raises BrokerError when there is no connection, or not any more."""
        will = Will(self._topics.bridge, OFFLINE, qos=1, retain=True)
        self._connected_at = None
        try:
            async with broker_connection(self._config, will) as client:
                await self._serve(client)
        except (MqttError, OSError, BrokerError) as error:
            raise BrokerError(failure(error, self._config, flapping=self._is_flapping())) from error

    def _is_flapping(self) -> bool:
        """Count the connections in a row that ended soon. Two in a row are no restart of the broker."""
        if self._connected_at is not None:
            lasted = time.monotonic() - self._connected_at
            self._short_connections = self._short_connections + 1 if lasted < _SHORT else 0
        return self._short_connections >= 2

    async def drain(self) -> None:
        """Cancel load commands. What was left to publish was published when `run` was cancelled."""
        await self._commands.aclose()

    # One connection

    async def _serve(self, client: Client) -> None:
        """Serve one connection. Raises the error that ends it."""
        self._shown.clear()
        self._rivals.reset()
        self._announcements.reset()
        started = asyncio.Event()
        # No TaskGroup: before Python 3.13 it does not tell its own cancellation of this task from that of the caller.
        tasks = [
            asyncio.create_task(part)
            for part in (
                self._receive(client),  # the first: its error has the broker's reason for a disconnection
                self._start(client, started),
                self._deliver(client, started),
                self._reconcile_changes(client, started),
                self._rivals.stay_online(client, started),
                self._commands.watch(),
            )
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        except asyncio.CancelledError:
            await _cancel(tasks)
            await self._leave(client)
            raise
        ended = [task for task in tasks if task.done() and not task.cancelled()]
        errors = [error for task in ended if (error := task.exception()) is not None]
        await _cancel(tasks)
        raise errors[0] from errors[0].__cause__

    async def _start(self, client: Client, started: asyncio.Event) -> None:
        await self._subscribe(client)
        await self._reconcile(client)
        await self._deliver_waiting(client)
        await publish(client, Outgoing(self._topics.bridge, ONLINE), qos=1)
        self._connected_at = time.monotonic()
        self.state.works()
        _log.info("mqtt: connected to %s:%d", self._config.host, self._config.port)
        started.set()

    async def _leave(self, client: Client) -> None:
        """Publish what waits, and that the gateway is offline: a broker drops the last will of who leaves in order."""
        with suppress(Exception):  # whatever fails here, the broker publishes the last will instead
            async with asyncio.timeout(_LEAVING):
                await self._deliver_waiting(client)
                await publish(client, Outgoing(self._topics.bridge, OFFLINE), qos=1)

    async def _subscribe(self, client: Client) -> None:
        await self._rivals.subscribe(client, discovery=self._config.discovery)
        if self._config.discovery:
            # Discovery is published after each connection anyway, so a retained status is of no use.
            options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
            for topic in sorted(self._topics.home_assistant_status):
                await subscribe(client, topic, options)
        if self._config.accepts_commands:
            # The retain flag is kept for subscribers, so that a retained command is recognised on arrival, too.
            await subscribe(client, self._topics.commands, SubscribeOptions(qos=1, retainAsPublished=True))

    # Readings

    async def _deliver(self, client: Client, started: asyncio.Event) -> NoReturn:
        await started.wait()
        while True:
            await self._deliver_some(client)

    async def _deliver_waiting(self, client: Client) -> None:
        """Publish what waits now. More may come as fast as it is published."""
        for _ in range(0, len(self._events), _BATCH):
            if len(self._events):
                await self._deliver_some(client)

    async def _deliver_some(self, client: Client) -> None:
        """Publish events together, so that a message does not wait until the one before it was written."""
        events = [await self._events.get()]
        while len(self._events) and len(events) < _BATCH:
            events.append(await self._events.get())
        async with self._publishing:
            # Those of a controller that is not announced yet are published after that.
            ready = [event for event in events if self._announcements.is_ready(event.controller)]
            await publish_all(client, [message for event in ready for message in self._messages(event)], qos=0)
            self.state.delivered += len(ready)

    def _messages(self, event: ControllerEvent) -> list[Outgoing]:
        controller = event.controller
        if not event.online:
            return self._offline(controller, event.since, event.reason or "no answer")
        passed = uptime() - event.monotonic
        if passed > controller.reading_lifetime:
            return self._offline(controller, event.reading.time, "no reading since then")
        state_left = whole_seconds(controller.reading_lifetime - passed)
        left = whole_seconds(controller.lifetime - passed)
        return [
            Outgoing(self._topics.state(controller.name), state_message(event), state_left),
            Outgoing(self._topics.availability(controller.name), ONLINE, left),
            *self._connection(controller, event.since, None),
        ]

    def _offline(self, controller: Controller, since: float, reason: str) -> list[Outgoing]:
        """Say that there is no reading. The last state stays in the broker until it expires, with its time."""
        lifetime = whole_seconds(controller.lifetime)
        availability = Outgoing(self._topics.availability(controller.name), OFFLINE, lifetime)
        return [availability, *self._connection(controller, since, reason)]

    def _connection(self, controller: Controller, since: float, reason: str | None) -> list[Outgoing]:
        """Say the reason with each event while it lasts. While there is none, say so before that expires."""
        name, now, lifetime = controller.name, uptime(), whole_seconds(controller.lifetime)
        shown_since, shown_reason, shown_at = self._shown.get(name, (None, None, 0.0))
        if reason is None and (shown_since, shown_reason) == (since, None) and now < shown_at + lifetime / 2:
            return []
        self._shown[name] = since, reason, now
        return [Outgoing(self._topics.connection(name), connection_message(since, reason), lifetime)]

    def _publish_again(self, name: str) -> None:
        """Publish the last event again. After a load command that failed, this corrects what a dashboard shows."""
        event = self._latest(name)
        if event is not None:
            self._events.put(event)

    def _latest(self, name: str) -> ControllerEvent | None:
        try:
            return self._controllers.latest(name)
        except KeyError:  # removed a moment ago
            return None

    # Announcements

    async def _reconcile_changes(self, client: Client, started: asyncio.Event) -> NoReturn:
        await started.wait()
        while True:
            await self._announcements.changed()
            await self._reconcile(client)

    async def _reconcile(self, client: Client) -> None:
        for controller in await self._announcements.reconcile(client):
            async with self._publishing:
                event = self._latest(controller.name)
                if event is not None:
                    self._events.put(event)
                elif self._announcements.is_ready(controller):
                    # The broker may still have `online` from the last run.
                    messages = self._offline(controller, time.time(), "no reading yet")
                    await publish_all(client, messages, qos=0)

    # What arrives

    async def _receive(self, client: Client) -> None:
        async for message in client.messages:
            topic = message.topic.value
            name = self._topics.commanded(topic)
            if name is not None:
                self._commands.take(message, name)
            elif topic not in self._topics.home_assistant_status:
                self._rivals.take(topic, message.payload)
            elif message.payload == b"online":
                self._announcements.repeat()


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
