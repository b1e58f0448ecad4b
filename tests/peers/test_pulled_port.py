"""A USB adapter that is unplugged and plugged in again: a new pseudo-terminal under the same path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tracer_async import ConnectionState, Reading, TracerClient
from tracer_async.simulator import serve_pty


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
@pytest.mark.parametrize("backend", ["pyserial", "serialx"])
async def test_an_unplugged_adapter_is_reconnected_when_it_is_back(backend: str, tmp_path: Path) -> None:
    port = tmp_path / "ttyUSB0"
    async with serve_pty() as url:
        port.symlink_to(url.removeprefix("serial://"))
        tracer = TracerClient(f"serial://{port}?backend={backend}", backoff=(0.01, 0.05), connect_timeout=0.5)
        await tracer.open()
        changes = tracer.state_changes()
        assert (await tracer.read_realtime()).charging
    try:
        assert await anext(changes) is ConnectionState.DOWN
        assert not (await next_reading(tracer)).ok
        port.unlink()
        assert not (await next_reading(tracer)).ok
        async with serve_pty() as url:
            port.symlink_to(url.removeprefix("serial://"))
            assert await anext(changes) is ConnectionState.UP
            assert (await tracer.read_realtime()).charging
    finally:
        await tracer.aclose()


async def next_reading(tracer: TracerClient) -> Reading:
    return await anext(tracer.poll(1.0))
