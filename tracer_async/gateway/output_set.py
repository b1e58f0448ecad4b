"""The outputs that run, one for each section of the configuration.

An output that has ended still takes events, until another one takes its place and what it could not deliver. So no
event is lost between the two.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import cast

from tracer_async.gateway.config import GatewayConfig
from tracer_async.gateway.history.query import HistoryReader
from tracer_async.gateway.hub import Hub
from tracer_async.gateway.output import Output
from tracer_async.gateway.output_factory import SECTIONS, MakeOutput

__all__ = ["OutputSet"]

_log = logging.getLogger(__name__)


class OutputSet:
    """Starts and stops the outputs of a hub by the names of their sections."""

    def __init__(self, hub: Hub, make_output: MakeOutput) -> None:
        self._hub = hub
        self._make_output = make_output
        self._running: dict[str, Output] = {}
        # Outputs that have ended, or are about to, and whose places are not taken yet.
        self._ended: dict[str, Output] = {}
        # Outputs that end. They are not cancelled with the one who waits for them.
        self._ending: set[asyncio.Task[None]] = set()

    def changed(self, before: GatewayConfig, after: GatewayConfig) -> list[str]:
        """Return the sections whose outputs have to be stopped, started, or both."""
        changed = {section for section in SECTIONS if getattr(before, section) != getattr(after, section)}
        if "history" in changed:
            changed.add("web")  # it has the old history
        return [section for section in SECTIONS if section in changed]

    def check(self, config: GatewayConfig, sections: Iterable[str]) -> None:
        """Raise what making the outputs of these sections raises."""
        self._make(config, sections)

    def start(self, config: GatewayConfig, sections: Iterable[str]) -> None:
        """Start the outputs of these sections, as far as *config* has them. Raises what making them raises."""
        # Nothing is awaited here: an event comes either before this, to the output that has ended, or to the new one.
        for section, output in self._make(config, sections).items():
            self._running[section] = output
            left = self._ended[section].take_left() if section in self._ended else []
            if left:
                _log.info("%s: %d readings that are not delivered yet are kept", section, len(left))
                for event in left:
                    output.publish(event)
            self._hub.start(output)
        for ended in self._ended.values():
            self._hub.detach(ended)
        self._ended.clear()

    def _make(self, config: GatewayConfig, sections: Iterable[str]) -> dict[str, Output]:
        made: dict[str, Output] = {}
        for section in sections:
            if getattr(config, section) is not None:
                history = made.get("history", self._running.get("history"))
                # The output of that section can be read, too.
                reader = cast("HistoryReader | None", history) if config.history is not None else None
                made[section] = self._make_output(section, config, self._hub, reader)
        return made

    async def reread_files(self) -> None:
        """Let the running outputs read their files again."""
        for output in list(self._running.values()):
            await output.reread_files()

    async def stop(self, sections: Iterable[str] = SECTIONS) -> None:
        """Stop the outputs of these sections, all at the same time, and wait for those that are stopping already.

        Takes at most the time that `Hub.stop` takes. If the caller is cancelled, they end nevertheless.
        """
        for section in sections:
            output = self._running.pop(section, None)
            if output is not None:
                self._ended[section] = output
                self._ending.add(asyncio.create_task(self._hub.stop(output), name=f"gateway stop {section}"))
        if self._ending:
            await asyncio.wait(self._ending)
            self._ending = {task for task in self._ending if not task.done()}
