"""A gateway, clients of the library and an old program share one controller behind ser2net, at the same time."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import ROOT, environment
from tests.promise.stamping_controller import READ
from tests.sharing.programs import Program
from tracer_async import TracerClient, sync
from tracer_async.sharing import share
from tracer_async.simulator import serve_pty

pytestmark = pytest.mark.slow

BRIDGE = """\
connection: &tracer
  accepter: tcp,127.0.0.1,{port}
  connector: serialdev,{device},9600n81,local
"""
CONFIG = """\
state_directory = "state"
[controllers.roof]
url = "{url}"
interval = 1
[mqtt]
url = "mqtt://127.0.0.1"
"""


@asynccontextmanager
async def bridged(program: str, folder: Path) -> AsyncIterator[str]:
    """ser2net in front of a simulated controller; yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    async with serve_pty() as url:
        config = folder / "ser2net.yaml"
        config.write_text(BRIDGE.format(port=port, device=url.removeprefix("serial://")))
        words = [program, "-n", "-c", str(config), "-P", str(folder / "pid")]
        bridge = await asyncio.create_subprocess_exec(*words, stderr=asyncio.subprocess.DEVNULL)
        try:
            yield f"tcp://127.0.0.1:{port}"
        finally:
            bridge.kill()
            await bridge.wait()


async def test_all_kinds_of_programs_at_the_same_time(tmp_path: Path, require: Callable[[str], str]) -> None:
    async def use_client(url: str) -> None:
        async with TracerClient(url, timeout=2.0) as tracer:
            for number in range(6):
                await tracer.read_realtime()
                if number % 3 == 0:
                    await tracer.set_load(on=number == 0)

    def use_blocking_client(url: str) -> None:
        with sync.TracerClient(url, timeout=2.0) as tracer:
            for _ in range(10):
                tracer.read_realtime()

    async def use_old_program(url: str) -> int:
        program = await Program.connect(url)
        answered = [await program.ask(READ) is not None for _ in range(20)]
        program.leave()
        return sum(answered)

    async def use_gateway(url: str) -> None:
        config, journal = tmp_path / "gateway.toml", tmp_path / "journal"
        config.write_text(CONFIG.format(url=url))
        words = [sys.executable, "-m", "tests.gateway.service_process", str(config), str(journal)]
        process = await asyncio.create_subprocess_exec(*words, cwd=ROOT, env=environment())
        try:
            until = time.monotonic() + 40
            while time.monotonic() < until:
                entries = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
                if sum(entry.get("online") is True for entry in entries) >= 3:
                    return
                await asyncio.sleep(0.1)
            raise AssertionError("the gateway has published no three readings")
        finally:
            process.terminate()
            await process.wait()

    options: dict[str, Any] = {"start_offline": True, "connect_timeout": 30.0, "backoff": (0.05, 0.2)}
    async with bridged(require("ser2net"), tmp_path) as url, TracerClient(url, **options) as client:
        await client.read_realtime()  # ser2net has started
        async with share(client, "127.0.0.1:0", f"pty:{tmp_path}/a", f"pty:{tmp_path}/b", reply_within=2.0) as sharing:
            tcp, serial, other_serial = sharing.urls
            _, _, _, answered, _ = await asyncio.gather(
                use_gateway(tcp),
                use_client(tcp),
                asyncio.to_thread(use_blocking_client, serial),
                use_old_program(tcp),
                use_client(other_serial),
            )
            assert answered > 10
            assert sharing.stats.programs <= 1
