"""A gateway as a process that is killed and started again, against simulated controllers that go on in this process."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp

from tests.gateway.peer_process import free_port, listening
from tracer_async.simulator import SimulatedTracer, serve_tcp


class CrashSite:
    """The simulated controllers c0, c1, ... and a gateway that polls them."""

    def __init__(self, folder: Path, tracers: list[SimulatedTracer]) -> None:
        self.folder = folder
        self.tracers = tracers
        self.port = free_port()
        self._config = folder / "gateway.toml"
        self._process: asyncio.subprocess.Process | None = None

    @classmethod
    @asynccontextmanager
    async def of(
        cls, folder: Path, tracers: list[SimulatedTracer], *, interval: float, flush_seconds: float, tables: str = ""
    ) -> AsyncIterator[CrashSite]:
        """Serve *tracers*. The gateway is not started. *tables* is more of its configuration."""
        site = cls(folder, tracers)
        async with AsyncExitStack() as stack:
            text = f'[web]\nlisten = "127.0.0.1:{site.port}"\n[energy]\nflush_seconds = {flush_seconds}\n{tables}\n'
            for number, tracer in enumerate(tracers):
                url = await stack.enter_async_context(serve_tcp(tracer))
                text += f"[controllers.c{number}]\nurl = {json.dumps(url)}\ninterval = {interval}\n"
            site._config.write_text(text)
            try:
                yield site
            finally:
                if site._process is not None and site._process.returncode is None:
                    await site.kill()

    async def start(self) -> None:
        """Start the gateway."""
        with (self.folder / "gateway.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tracer_async", "gateway", str(self._config), stderr=log
            )

    async def listening(self) -> None:
        """Wait until the gateway answers on its port."""
        assert self._process is not None
        ended = asyncio.create_task(self._process.wait())
        up = asyncio.create_task(listening(self.port))
        await asyncio.wait([ended, up], return_when=asyncio.FIRST_COMPLETED)
        assert not ended.done(), (self.folder / "gateway.log").read_text()
        ended.cancel()
        await up

    async def kill(self) -> None:
        """End the gateway as a power cut does."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        """End the gateway in order."""
        assert self._process is not None
        self._process.terminate()
        assert await self._process.wait() == 0

    async def counter(self, name: str) -> dict[str, float]:
        """Return a metric of each controller that has it."""
        url = f"http://127.0.0.1:{self.port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            lines = (await response.text()).splitlines()
        samples = [line.rpartition(" ") for line in lines if line.startswith(f"{name}{{")]
        return {labels.partition('controller="')[2].partition('"')[0]: float(value) for labels, _, value in samples}

    async def counter_above(self, name: str, floors: dict[str, float]) -> dict[str, float]:
        """Wait until the metric of each controller is above *floors*, and return it."""
        async with asyncio.timeout(60):
            while True:
                values = await self.counter(name)
                if all(values.get(controller, 0.0) > floor for controller, floor in floors.items()):
                    return values
                await asyncio.sleep(0.05)

    def stored(self) -> dict[str, dict[str, float]]:
        """Return the energies in the file of the gateway, by controller; nothing if there is no file yet."""
        try:
            text = (self.folder / "energy.json").read_text()
        except FileNotFoundError:
            return {}
        controllers: dict[str, dict[str, float]] = json.loads(text)["controllers"]
        return controllers
