"""The event loop of the gateway as a process."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from tests.gateway.peer_process import running

PROGRAM = """
import sys
from pathlib import Path
if sys.argv[2] == "missing":
    sys.modules["uvloop"] = None
from tracer_async.gateway.process import run_gateway
run_gateway(Path(sys.argv[1]))
"""


def content(file: Path) -> str:
    return file.read_text()


async def logged(log: Path, text: str) -> None:
    async with asyncio.timeout(30):
        while text not in content(log):
            await asyncio.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux shows what a process has loaded")
@pytest.mark.parametrize("uvloop", ["installed", "missing"])
async def test_it_is_the_one_of_uvloop_if_that_is_installed(tmp_path: Path, uvloop: str) -> None:
    pytest.importorskip("uvloop", reason="uvloop is not installed")
    config, log = tmp_path / "gateway.toml", tmp_path / "log"
    config.write_text('[controllers.roof]\nurl = "sim:"\ninterval = 0.2\n')
    async with running(sys.executable, "-c", PROGRAM, str(config), uvloop, log=log) as process:
        await logged(log, "roof is online")
        assert ("uvloop/loop" in content(Path(f"/proc/{process.pid}/maps"))) == (uvloop == "installed")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
