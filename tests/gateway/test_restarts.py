"""What Prometheus makes of a gateway that is killed and started again, again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest

from tests.gateway.crash_site import CrashSite
from tests.gateway.peer_process import free_port, running
from tracer_async.simulator import SimulatedTracer

METRIC = "tracer_charge_energy_joules_total"
RESTARTS = 50
# Seconds that a start takes on a busy machine.
EDGES = 10.0

CONFIG = """\
global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}
scrape_configs:
  - job_name: tracer
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


class Prometheus:
    """The answers of a Prometheus server."""

    def __init__(self, port: int, session: aiohttp.ClientSession) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1/query"
        self._session = session

    async def samples(self) -> list[float]:
        """Every sample of the counter, in order."""
        result = await self._query(f"{METRIC}[1h]")
        return [float(value) for _, value in result[0]["values"]] if result else []

    async def value(self, expression: str) -> float:
        (result,) = await self._query(expression)
        return float(result["value"][1])

    async def _query(self, expression: str) -> list[dict[str, Any]]:
        async with self._session.get(self._url, params={"query": expression}) as response:
            answer = await response.json()
            assert answer["status"] == "success", answer
            return answer["data"]["result"]  # type: ignore[no-any-return]

    async def until_it_has(self, value: float) -> None:
        async with asyncio.timeout(60):
            while (await self.samples() or [-1.0])[-1] < value:
                await asyncio.sleep(0.1)


@pytest.mark.slow
async def test_increase_over_fifty_kills_shows_no_jump_and_no_energy_is_counted_twice(
    require: Callable[[str], str], tmp_path: Path
) -> None:
    tracer = SimulatedTracer(state_of_charge=0.4)
    tracer.irradiance = 700
    random = Random(1)
    port = free_port()
    config = tmp_path / "prometheus.yml"
    arguments = [
        f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    async with CrashSite.of(tmp_path, [tracer], interval=0.2, flush_seconds=1) as site:
        config.write_text(CONFIG.format(port=site.port))
        begun = tracer.charge_energy
        async with running(require("prometheus"), *arguments, log=tmp_path / "log"), aiohttp.ClientSession() as session:
            prometheus = Prometheus(port, session)
            seen = {"c0": 0.0}
            for number in range(RESTARTS):
                await site.start()
                await site.listening()
                if number % 5 == 0:
                    seen = await site.counter_above(METRIC, seen)
                await asyncio.sleep(random.uniform(0.0, 0.5))
                await site.kill()
            await site.start()
            await site.listening()
            last = (await site.counter_above(METRIC, seen))["c0"]
            await prometheus.until_it_has(last)
            samples = await prometheus.samples()
            increase = await prometheus.value(f"increase({METRIC}[1h])")
            resets = await prometheus.value(f"resets({METRIC}[1h])")
        await site.stop()
        stored = site.stored()["c0"]
        true_energy = tracer.charge_energy - begun
    # The simulator says how much there was. Time of which the gateway knows nothing has no energy, and is known.
    assert resets == 0
    assert samples == sorted(samples)
    assert len(set(samples)) > RESTARTS / 5
    grown = samples[-1] - samples[0]
    # Prometheus extrapolates to both ends, by half of the average distance of two samples.
    assert grown <= increase <= 1.05 * grown
    assert 0 < grown <= 1.02 * 3600 * true_energy
    watts = tracer.realtime().charge_power
    # The time before the first flush, and after the last reading, is neither counted nor unknown.
    covered = stored["charge"] + watts * stored["unknown"] / 3600
    assert covered == pytest.approx(true_energy, abs=watts * EDGES / 3600)
