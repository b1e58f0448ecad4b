"""The gateway with three simulated controllers, for a first look."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from tracer_async.gateway.config import GatewayConfig
from tracer_async.gateway.history.query import HistoryReader
from tracer_async.gateway.output import Controllers, Output
from tracer_async.gateway.output_factory import make_output
from tracer_async.gateway.process import run_gateway

__all__ = ["run_demo"]

_PORT = 8090

# A day at the house takes one hour, one at the barn ten minutes. The boat is in the evening, in real time.
_CONFIG = """\
[controllers.house]
title = "House roof"
url = "sim:?seed=1&time_scale=24&start_hour=10"
interval = 1

[controllers.barn]
title = "Barn"
url = "sim:?seed=2&time_scale=144&start_hour=6"
interval = 2

[controllers.boat]
title = "Boat"
url = "sim:?seed=3&start_hour=18"
interval = 5

[web]
listen = "127.0.0.1:{port}"

[history]
flush_seconds = 2

[energy]
flush_seconds = 2

[log]
level = "warning"
"""


def run_demo(say: Callable[[str], None]) -> signal.Signals | None:
    """Run until SIGTERM or Ctrl-C; return the signal. *say* gets the address of the dashboard when it listens."""
    waiting: list[asyncio.Task[None]] = []

    def make(section: str, config: GatewayConfig, controllers: Controllers, history: HistoryReader | None, /) -> Output:
        output = make_output(section, config, controllers, history)
        if section == "web":
            waiting.append(asyncio.create_task(_announce(output, say)))
        return output

    with TemporaryDirectory(prefix="tracer-async-") as folder:
        path = Path(folder) / "gateway.toml"
        path.write_text(_CONFIG.format(port=_port()), encoding="utf-8")
        return run_gateway(path, make_output=make)


async def _announce(output: Output, say: Callable[[str], None]) -> None:
    from tracer_async.gateway.web import WebOutput

    if isinstance(output, WebOutput):
        await output.listening.wait()
        say(f"dashboard: {output.url}")


def _port() -> int:
    """Return the usual port, or 0 for any free one if it is in use."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", _PORT))
        except OSError:
            return 0
    return _PORT
