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
        self._ending: dict[str, asyncio.Task[None]] = {}

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
                stopping = self._hub.stop(output)
                self._ending[section] = asyncio.create_task(stopping, name=f"gateway stop {section}")
        if self._ending:
            await asyncio.wait(self._ending.values())
            self._ending = {section: task for section, task in self._ending.items() if not task.done()}

    async def aclose(self) -> None:
        """Stop all outputs at the end of the service, when no event comes any more.

        Outputs that ended for a reload, which did not come to its end, deliver what they have taken since.
        """
        late = [self._deliver_late(section, output) for section, output in self._ended.items()]
        await asyncio.gather(self.stop(), *late)

    async def _deliver_late(self, section: str, output: Output) -> None:
        """Let an output that has ended, or is about to, deliver the events that it took after that."""
        if section in self._ending:
            await asyncio.wait([self._ending[section]])
        left = output.take_left()
        if not left:
            return
        for event in left:
            output.publish(event)
        await self._hub.stop(output)
        if lost := len(output.take_left()):
            _log.error("%s: %d readings that could not be delivered are lost", section, lost)
