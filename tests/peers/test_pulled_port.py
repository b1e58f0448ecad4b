"""A USB adapter that is unplugged, and plugged in again: a new pseudo-terminal under the same path."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.promise.bridges import BACKENDS, LOOPS, SECONDS, fill_output, run
from tracer_async import ConnectionState, LinkError, Reading, TracerClient
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
        # Before the end of the pseudo-terminal: another process can get one with the same number at once.
        port.unlink()
    try:
        assert await anext(changes) is ConnectionState.DOWN
        assert not (await next_reading(tracer)).ok
        async with serve_pty() as url:
            port.symlink_to(url.removeprefix("serial://"))
            assert await anext(changes) is ConnectionState.UP
            assert (await tracer.read_realtime()).charging
    finally:
        await tracer.aclose()


async def next_reading(tracer: TracerClient) -> Reading:
    return await anext(tracer.poll(1.0))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("stuck", [False, True])
def test_unplugging_an_adapter_while_a_request_is_written_is_a_lost_connection_and_no_error_in_the_event_loop(
    loop: Any, backend: str, stuck: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """*stuck*: the adapter takes no bytes any more, so the request waits in the transport."""
    import tty

    async def main() -> None:
        controller, terminal = os.openpty()
        tty.setraw(terminal)
        url = f"serial://{os.ttyname(terminal)}?backend={backend}"
        async with asyncio.timeout(SECONDS), TracerClient(url, timeout=SECONDS, backoff=(SECONDS, SECONDS)) as tracer:
            changes = tracer.state_changes()
            if stuck:
                await fill_output(terminal)
            reading = asyncio.create_task(tracer.read_realtime())
            await asyncio.sleep(0)  # the request is written, and the transport has not run since
            os.close(controller)
            os.close(terminal)
            assert await anext(changes) is ConnectionState.DOWN
        with pytest.raises(LinkError):
            await reading

    run(loop, main())
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_adapter_whose_reads_fail_while_it_takes_no_bytes_is_a_lost_connection(
    loop: Any, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The read call is replaced, because a pseudo-terminal fails in both directions at the same time."""
    import tty

    controller, terminal = os.openpty()
    tty.setraw(terminal)
    path = os.ttyname(terminal)
    really_read = os.read

    def read(descriptor: int, size: int) -> bytes:
        if os.isatty(descriptor) and os.ttyname(descriptor) == path:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return really_read(descriptor, size)

    async def main() -> None:
        url = f"serial://{path}?backend={backend}"
        async with asyncio.timeout(SECONDS), TracerClient(url, timeout=SECONDS, backoff=(SECONDS, SECONDS)) as tracer:
            changes = tracer.state_changes()
            await fill_output(terminal)
            reading = asyncio.create_task(tracer.read_realtime())
            await asyncio.sleep(0)
            monkeypatch.setattr("os.read", read)
            os.write(controller, b"x")
            assert await anext(changes) is ConnectionState.DOWN
        with pytest.raises(LinkError):
            await reading

    try:
        run(loop, main())
    finally:
        os.close(controller)
        os.close(terminal)
