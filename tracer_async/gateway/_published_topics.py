"""The retained topics that the gateway has published, in a file: what it has to clean up later."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tracer_async.gateway._durable_file import sync_directory, write_new

__all__ = ["PublishedTopics"]

_log = logging.getLogger(__name__)

# More than any topic of the gateway has, and within MQTT's limit of 65,535 bytes.
_MAX_TOPIC = 16_000


class PublishedTopics:
    """Remembers topics across restarts.

    A topic is added before its first message is sent, and removed after the broker has confirmed that its retained
    message is deleted. So the file may name a topic without a message, but misses one only if it cannot be written,
    which is logged.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._topics: frozenset[str] | None = None
        # Whether the file may lack something: a write of it runs, or has failed.
        self._stale = False
        self._writing = asyncio.Lock()
        self._writes: set[asyncio.Task[None]] = set()

    @property
    def topics(self) -> frozenset[str]:
        """The topics. Empty before `load`."""
        return self._topics or frozenset()

    async def load(self) -> None:
        """Read the file, once. A file that cannot be read is reported, and counts as empty."""
        if self._topics is None:
            self._topics = await asyncio.to_thread(_read, self._file)

    async def add(self, topics: Iterable[str]) -> None:
        """Remember *topics*."""
        await self._store(self.topics | frozenset(topics))

    async def remove(self, topics: Iterable[str]) -> None:
        """Forget *topics*."""
        await self._store(self.topics - frozenset(topics))

    async def _store(self, topics: frozenset[str]) -> None:
        if topics == self._topics and not self._stale:
            return
        # Stale until it is written: if the caller is cancelled meanwhile, the next one must not rely on the file.
        self._topics, self._stale = topics, True
        # A task of its own, that goes on if the caller is cancelled: a thread cannot be cancelled, and the next write
        # must not begin before this one has ended.
        task = asyncio.create_task(self._write(topics))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        await asyncio.shield(task)

    async def _write(self, topics: frozenset[str]) -> None:
        text = json.dumps({"version": 1, "topics": sorted(topics)}, indent=1)
        try:
            async with self._writing:
                await asyncio.to_thread(_replace, self._file, text)
            if topics == self._topics:
                self._stale = False
        except OSError as error:
            _log.warning(
                "%s: cannot be written, so removed controllers may stay in Home Assistant: %s", self._file, error
            )


def _read(file: Path) -> frozenset[str]:
    try:
        content: Any = json.loads(file.read_text())
        topics = content["topics"]
        if isinstance(topics, list) and all(map(_is_topic, topics)):
            return frozenset(topics)
        raise TypeError("it has other values than expected")
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        _log.warning("%s: cannot be read, so controllers removed before now are not cleaned up: %s", file, error)
    return frozenset()


def _is_topic(value: object) -> bool:
    """Return whether messages can be published on a topic. One that a broker refuses would end every connection."""
    return isinstance(value, str) and 0 < len(value) <= _MAX_TOPIC and value.isprintable() and not {*value} & {*"+#"}


def _replace(file: Path, text: str) -> None:
    write_new(file, text.encode()).replace(file)
    sync_directory(file.parent)
