"""The service with outputs for tests: ``python -m tests.gateway.service_process CONFIG.toml JOURNAL``.

Each section gets an output that writes a line to the journal for whatever it is told. The user name in ``[mqtt]``
chooses how that one behaves.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import time
from pathlib import Path

from tracer_async.cli.exit_codes import ExitCode
from tracer_async.gateway.config import GatewayConfig
from tracer_async.gateway.config_errors import ConfigError
from tracer_async.gateway.events import Controller, ControllerEvent
from tracer_async.gateway.history.query import HistoryReader
from tracer_async.gateway.output import Controllers, Output
from tracer_async.gateway.process import run_gateway
from tracer_async.gateway.service import GatewayError


class JournalOutput(Output):
    """Writes what it is told to a file, at once."""

    count = 0

    def __init__(self, section: str, behaviour: str, journal: Path) -> None:
        super().__init__(section)
        self._behaviour = behaviour
        self._journal = journal
        self._held = 0
        JournalOutput.count += 1
        self._number = JournalOutput.count
        if behaviour == "raise":
            raise ValueError("cannot be made")

    def _note(self, what: str, **more: object) -> None:
        entry = {"output": self.state.name, "number": self._number, "what": what, **more}
        with self._journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def add(self, controller: Controller) -> None:
        self._note("add", name=controller.name, title=controller.title)

    def remove(self, controller: Controller) -> None:
        self._note("remove", name=controller.name)

    def publish(self, event: ControllerEvent) -> None:
        self._held += 1
        self._note("event", name=event.controller.name, online=event.online, requests=event.stats.requests)

    async def run(self) -> None:
        self._note("run")
        self.state.works()
        if self._behaviour == "thread":
            await asyncio.to_thread(time.sleep, 3600)
        if self._behaviour == "secret":
            logging.getLogger("tracer_async.gateway.fake").error(
                "the password hunter2-hunter2\nis %r", "hunter2-hunter2"
            )
        await asyncio.Event().wait()

    async def drain(self) -> None:
        if self._behaviour == "slow":
            await asyncio.sleep(3600)
        if self._behaviour == "late":
            await asyncio.sleep(1)
        self._note("drain", held=self._held)


def main() -> None:
    config, journal = map(Path, sys.argv[1:])

    def make(
        section: str, config: GatewayConfig, _controllers: Controllers, _history: HistoryReader | None, /
    ) -> Output:
        # Something in the section that has no other effect here.
        behaviour = config.mqtt.username if section == "mqtt" and config.mqtt is not None else None
        return JournalOutput(section, behaviour or "", journal)

    try:
        signum = run_gateway(config, make_output=make)
    except (ConfigError, GatewayError) as error:
        sys.exit(str(error))
    sys.exit(ExitCode.INTERRUPTED if signum is signal.SIGINT else ExitCode.OK)


if __name__ == "__main__":
    main()
