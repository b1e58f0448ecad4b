"""The same client on uvloop's event loop, which has its own transports."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conftest import require
from tests.links import LINKS
from tracer_async import Fleet, LinkRefusedError, LoadState, TracerClient
from tracer_async.simulator import serve_tcp

uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")


@pytest.mark.parametrize("context", LINKS)
def test_everything_works_on_uvloop(context: Any) -> None:
    async def main() -> None:
        async with context(require) as link:
            for _ in range(2):
                async with TracerClient(link.url) as tracer:
                    assert (await tracer.read_realtime()).charging
                    assert await tracer.set_load(False) is LoadState.OFF
                    assert not link.tracer.load_on
                    assert [(await anext(tracer.poll(0.01))).ok for _ in range(3)] == [True] * 3
                    await tracer.set_load(True)

    run(main())


def test_a_fleet_works_on_uvloop_and_a_refused_link_is_reported() -> None:
    async def main() -> None:
        async with serve_tcp() as url, Fleet() as fleet:
            for number in range(20):
                fleet.add(url, interval=0.05, name=str(number))
            readings = [(await anext(fleet)).reading for _ in range(60)]
            assert all(reading.ok for reading in readings)
        with pytest.raises(LinkRefusedError):
            await TracerClient(url).open()

    run(main())


def run(main: Any) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)
