"""Device discovery for Home Assistant, and the deletion of what removed controllers leave in the broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterable
from pathlib import Path

from aiomqtt import Client

from tracer_async.gateway._broker import Outgoing, publish_all
from tracer_async.gateway._published_topics import PublishedTopics
from tracer_async.gateway._topics import Topics
from tracer_async.gateway.config import MqttConfig
from tracer_async.gateway.discovery import device_discovery
from tracer_async.gateway.events import Controller

__all__ = ["Announcements"]


class Announcements:
    """What the broker has to know about the configured controllers, as opposed to what it was told in the past.

    A controller is *ready* once its topics are in the file, so that they can be deleted later. Publish nothing about
    it before.
    """

    def __init__(self, config: MqttConfig, topics: Topics, file: Path) -> None:
        self._config = config
        self._topics = topics
        self._published = PublishedTopics(file)
        self._configured: dict[str, Controller] = {}
        self._ready: dict[str, Controller] = {}
        self._changed = asyncio.Event()

    def add(self, controller: Controller) -> None:
        """Announce a controller, at the next `reconcile`."""
        self._configured[controller.name] = controller
        self._changed.set()

    def remove(self, controller: Controller) -> None:
        """Delete what was published about a controller, at the next `reconcile`."""
        self._configured.pop(controller.name, None)
        self._ready.pop(controller.name, None)
        self._changed.set()

    def repeat(self) -> None:
        """Announce all controllers again."""
        self._changed.set()

    def reset(self) -> None:
        """Begin a new connection: no controller is ready."""
        self._ready.clear()

    async def changed(self) -> None:
        """Wait until `reconcile` has something to do."""
        await self._changed.wait()

    def is_ready(self, controller: Controller) -> bool:
        """Return whether messages about the controller may be published."""
        return self._ready.get(controller.name) == controller

    async def reconcile(self, client: Client) -> list[Controller]:
        """Announce all controllers, and delete what is not wanted any more. Return those that have become ready."""
        self._changed.clear()
        await self._published.load()
        configured = dict(self._configured)
        await self._published.add(self._wanted())
        if self._config.discovery:
            await self._announce(client, configured.values())
        await self._delete(client, self._published.topics - self._wanted())
        new = [each for each in configured.values() if self._is_new(each)]
        self._ready.update({each.name: each for each in new})
        return new

    def _is_new(self, controller: Controller) -> bool:
        return self._configured.get(controller.name) == controller and not self.is_ready(controller)

    def _wanted(self) -> frozenset[str]:
        """All topics with retained messages of the present configuration."""
        topics = {self._topics.bridge}
        for controller in self._configured.values():
            topics.update(self._topics.retained(controller))
            if self._config.discovery:
                topics.add(self._topics.discovery(controller.id))
        return frozenset(topics)

    async def _announce(self, client: Client, controllers: Iterable[Controller]) -> None:
        messages: list[Outgoing] = []
        for controller in controllers:
            commands = self._config.accepts_commands and controller.switchable
            payload = device_discovery(controller, self._topics, commands=commands)
            messages.append(Outgoing(self._topics.discovery(controller.id), json.dumps(payload).encode()))
        await publish_all(client, messages, qos=1)

    async def _delete(self, client: Client, topics: Collection[str]) -> None:
        """Delete retained messages, the entities first: then an empty state reaches no entity."""
        discoveries = {topic for topic in topics if topic.endswith("/config")}
        for part in (discoveries, set(topics) - discoveries):
            await publish_all(client, [Outgoing(topic, b"") for topic in sorted(part)], qos=1)
        await self._published.remove(topics)
