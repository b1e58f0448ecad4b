"""The service as a process: from the configuration file to the exit."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import threading
from contextlib import suppress
from logging.handlers import MemoryHandler
from pathlib import Path

from tracer_async.gateway.config import GatewayConfig
from tracer_async.gateway.config_file import load_config
from tracer_async.gateway.logs import configure_logging, secrets_of
from tracer_async.gateway.output_factory import MakeOutput, make_output
from tracer_async.gateway.service import Gateway

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["run_gateway"]

# Seconds after a signal. Everything has been written before.
_EXIT_SECONDS = 4.3


def run_gateway(path: Path, *, make_output: MakeOutput = make_output) -> signal.Signals | None:
    """Run the service of this process until SIGTERM or Ctrl-C; return the signal.

    Once it is told to end, the whole process ends within 5 s, even if a thread hangs in a call that cannot be
    interrupted. Raises ConfigError, MissingExtraError and GatewayError.
    """
    config = _load(path)
    _allow_open_files()
    gateway = Gateway(
        path, config, make_output=make_output, on_start=_keep_modules, on_stop=lambda: _exit_in_time(gateway)
    )
    with asyncio.Runner(loop_factory=_event_loop) as runner:
        runner.run(gateway.run())
    return gateway.stopped_by


def _event_loop() -> asyncio.AbstractEventLoop:
    """Return a loop of uvloop, if that is installed."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _load(path: Path) -> GatewayConfig:
    """Read the configuration and log as it says. Warnings about the file itself have to wait for that."""
    early = MemoryHandler(1000, flushLevel=logging.CRITICAL + 1)
    root = logging.getLogger()
    logging.getLogger("tracer_async").setLevel(logging.WARNING)
    root.addHandler(early)
    try:
        config = load_config(path)
    finally:
        root.removeHandler(early)
    configure_logging(config.log, secrets_of(config))
    for record in early.buffer:
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)
    return config


def _allow_open_files() -> None:
    """Allow as many open files as the system lets us have. The usual 1,024 are few for 1,000 controllers."""
    if resource is not None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _keep_modules() -> None:
    """Let garbage collections leave out what was imported. With it, a full one stops the event loop for 0.1 s."""
    gc.collect()
    gc.freeze()


def _exit_in_time(gateway: Gateway) -> None:
    """End the process a while later. Nothing but a new process helps against a name lookup that hangs in a thread."""
    code = {None: 1, signal.SIGTERM: 0}.get(gateway.stopped_by, 130)
    timer = threading.Timer(_EXIT_SECONDS, _exit, (code,))
    timer.daemon = True
    timer.start()


def _exit(code: int) -> None:
    # Without flushing the standard streams: they may be closed, or nobody reads them. The log is flushed line by line.
    os._exit(code)
