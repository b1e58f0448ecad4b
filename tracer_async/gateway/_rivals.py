"""Notices other clients that publish on the topics of this gateway, such as a second gateway with the same prefix."""

from __future__ import annotations

import asyncio
import logging
from typing import NoReturn

from aiomqtt import Client
from paho.mqtt.subscribeoptions import SubscribeOptions

from tracer_async.gateway._broker import Outgoing, publish, subscribe
from tracer_async.gateway._mqtt_messages import ONLINE
from tracer_async.gateway._topics import Topics
from tracer_async.gateway.output import Controllers

__all__ = ["Rivals"]

_log = logging.getLogger(__name__)

# Seconds from one correction of the gateway's state to the next.
_AGAIN = 1.0


class Rivals:
    """What other clients publish in our place, on one connection after another."""

    def __init__(self, topics: Topics, controllers: Controllers) -> None:
        self._topics = topics
        self._controllers = controllers
        self._contradicted = asyncio.Event()
        # Topics of the discovery that another client has overwritten, on this connection.
        self._overwritten: set[str] = set()

    def reset(self) -> None:
        """Begin a new connection."""
        self._contradicted.clear()
        self._overwritten.clear()

    async def subscribe(self, client: Client, *, discovery: bool) -> None:
        """Subscribe to what others publish from now on, and not to what this client publishes itself."""
        options = SubscribeOptions(qos=1, noLocal=True, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
        await subscribe(client, self._topics.bridge, options)
        if discovery:
            await subscribe(client, self._topics.discovery("+"), options)

    def take(self, topic: str, payload: object) -> None:
        """Take a message. Those on other topics than ours are ignored."""
        if topic == self._topics.bridge:
            if payload != ONLINE:
                self._contradicted.set()
        elif payload and topic not in self._overwritten:
            self._warn_of_other_device(topic)

    def _warn_of_other_device(self, topic: str) -> None:
        """Warn if another client announces a device as one of ours. Home Assistant shows its values then, not ours."""
        names = {self._topics.discovery(each.id): each.name for each in self._controllers.all()}
        if topic in names:
            self._overwritten.add(topic)
            _log.warning(
                "mqtt: another client announces a device with the id of %s, which Home Assistant shows instead: give "
                "controllers.%s an id that no other gateway has",
                names[topic],
                names[topic],
            )

    async def stay_online(self, client: Client, started: asyncio.Event) -> NoReturn:
        """Say again that the gateway is online, after another client has said something else.

        A second gateway with the same prefix says `offline` when it ends. Home Assistant would show nothing more.
        """
        await started.wait()
        while True:
            await self._contradicted.wait()
            self._contradicted.clear()
            _log.warning("mqtt: another client publishes on %s: give each gateway its own prefix", self._topics.bridge)
            await publish(client, Outgoing(self._topics.bridge, ONLINE), qos=1)
            await asyncio.sleep(_AGAIN)
