"""A hub with simulated controllers and an MQTT output, and the same as a process that a test can kill."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tracer_async.gateway.config import ControllerConfig, MqttConfig
from tracer_async.gateway.energy_ledger import EnergyLedger
from tracer_async.gateway.hub import Hub
from tracer_async.gateway.mqtt import MqttOutput

INTERVAL = 0.2


def controller(url: str, **options: Any) -> ControllerConfig:
    return ControllerConfig(url=url, **{"interval": INTERVAL, "timeout": 0.5, "retries": 1, **options})


@asynccontextmanager
async def gateway(
    folder: Path, config: MqttConfig, controllers: dict[str, ControllerConfig]
) -> AsyncIterator[tuple[Hub, MqttOutput]]:
    """Run a hub with an MQTT output. At the end it is stopped in order, as the service does it."""
    ledger = EnergyLedger(folder / "energy.json", zone=None, flush_seconds=0.1)
    ledger.load()
    hub = Hub(ledger)
    for name, options in controllers.items():
        hub.add(name, options)
    output = MqttOutput(config, hub, directory=folder)
    hub.start(output)
    tasks = [asyncio.create_task(hub.run()), asyncio.create_task(ledger.run())]
    try:
        yield hub, output
    finally:
        with suppress(KeyError):
            await hub.stop(output)
        await hub.aclose()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await ledger.aclose()


async def _main(folder: str, broker: str, url: str) -> None:
    async with gateway(Path(folder), MqttConfig(url=broker), {"roof": controller(url)}):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
