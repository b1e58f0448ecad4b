"""Mosquitto with a configuration of its own, and its command-line clients as independent judges."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.gateway.peer_process import free_port

Require = Callable[[str], str]


class Broker:
    """A Mosquitto that keeps nothing when it ends."""

    def __init__(self, require: Require, folder: Path, *, settings: str = "allow_anonymous true") -> None:
        self._program = require("mosquitto")
        self.subscribe_program = require("mosquitto_sub")
        self.publish_program = require("mosquitto_pub")
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            f"user root\nlistener {self.port} 127.0.0.1\npersistence false\nlog_dest stderr\nlog_type all\n{settings}\n"
        )
        self._log_file = folder / "mosquitto.log"
        # What the judges need to connect.
        self.options: list[str] = []
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self._log_file.read_text()

    async def start(self) -> None:
        with self._log_file.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(self._program, "-c", str(self._config), stderr=log)
        async with asyncio.timeout(10):
            while " running" not in self.log:
                assert self._process.returncode is None
                await asyncio.sleep(0.01)

    async def kill(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def publish(self, topic: str, payload: str, *options: str) -> None:
        """Publish with mosquitto_pub, and wait until the broker has confirmed it."""
        arguments = [*self._common(), "-q", "1", "-t", topic, *options]
        arguments += ["-m", payload] if payload else ["-n"]
        process = await asyncio.create_subprocess_exec(self.publish_program, *arguments)
        assert await process.wait() == 0

    async def retained(self, pattern: str = "#") -> dict[str, Message]:
        """Return the retained messages that the broker has at this moment, by their topics."""
        async with self.subscriber(pattern) as subscriber:
            return {each.topic: each for each in subscriber.messages if each.retained}

    @asynccontextmanager
    async def subscriber(self, pattern: str = "#") -> AsyncIterator[Subscriber]:
        """Run mosquitto_sub. It is subscribed, and has received all retained messages, when this returns."""
        arguments = [*self._common(), "-t", pattern, "-t", "test/subscribed", "-F", "%j", "--retain-as-published"]
        process = await asyncio.create_subprocess_exec(
            self.subscribe_program, *arguments, stdout=asyncio.subprocess.PIPE, limit=2**20
        )
        subscriber = Subscriber()
        reading = asyncio.create_task(subscriber.read(process))
        try:
            while not subscriber.subscribed.is_set():
                await self.publish("test/subscribed", "x")
                await asyncio.sleep(0.01)
            yield subscriber
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await reading

    def _common(self) -> list[str]:
        return ["-V", "5", "-h", "127.0.0.1", "-p", str(self.port), *self.options]


@dataclass(frozen=True)
class Message:
    """A message as mosquitto_sub reports it."""

    topic: str
    payload: str
    retained: bool
    qos: int
    properties: dict[str, Any]

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.payload)
        return value


@dataclass
class Subscriber:
    """What mosquitto_sub has received, in this order."""

    messages: list[Message] = field(default_factory=list)
    subscribed: asyncio.Event = field(default_factory=asyncio.Event)
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            values = json.loads(line)
            if values["topic"] == "test/subscribed":
                self.subscribed.set()
                continue
            retained, properties = bool(values["retain"]), values.get("properties", {})
            payload = values.get("payload") or ""
            self.messages.append(Message(values["topic"], payload, retained, values["qos"], properties))
            self._more.set()

    async def wait(self, topic: str, payload: str | None = None, **fields: Any) -> Message:
        """Wait for a message with this payload, or with these fields in its JSON object; remove all up to it."""
        message = await self.wait_anywhere(topic, payload, **fields)
        del self.messages[: self.messages.index(message) + 1]
        return message

    async def wait_anywhere(self, topic: str, payload: str | None = None, **fields: Any) -> Message:
        """Wait for such a message in any order with others; remove nothing."""
        async with asyncio.timeout(15):
            while True:
                for message in self.messages:
                    if message.topic == topic and _matches(message, payload, fields):
                        return message
                self._more.clear()
                await self._more.wait()

    def payloads(self, topic: str) -> list[str]:
        return [message.payload for message in self.messages if message.topic == topic]


def _matches(message: Message, payload: str | None, fields: dict[str, Any]) -> bool:
    if payload is not None:
        return message.payload == payload
    if not fields:
        return True
    return bool(message.payload) and {**message.json, **fields} == message.json
