"""The service: hub, energy ledger and outputs from a configuration, from the start to the end.

SIGHUP reads the configuration and the certificates again, and applies only what changed. SIGTERM and Ctrl-C end the
service within 5 s. If polling or counting stops for any other reason, the service ends with an error, so that its
supervisor starts it again.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from tracer_async import TracerClient, TracerError
from tracer_async.gateway import systemd
from tracer_async.gateway._clock import uptime
from tracer_async.gateway.config import GatewayConfig
from tracer_async.gateway.config_file import ConfigError, load_config
from tracer_async.gateway.energy_ledger import EnergyLedger
from tracer_async.gateway.hub import Hub
from tracer_async.gateway.logs import configure_logging, secrets_of
from tracer_async.gateway.output_factory import SECTIONS, MakeOutput, make_output
from tracer_async.gateway.output_set import OutputSet
from tracer_async.sharing import Listener

__all__ = ["Gateway", "GatewayError", "check_controllers", "summary"]

_log = logging.getLogger(__name__)

# Seconds for closing the lines, and then for the outputs and the energy totals, which end at the same time.
_CLOSE_SECONDS = 0.5
_FINISH_SECONDS = 3.7
# Seconds between two reports to systemd, if its watchdog does not ask for more.
_REPORT_SECONDS = 5.0
# What only a new start applies, and how it is called in the file.
_FIXED = {"state_directory": "state_directory", "time_zone": "time_zone", "energy": "[energy]"}


class GatewayError(TracerError):
    """The service cannot start, or cannot go on."""


def check_controllers(config: GatewayConfig) -> None:
    """Raise MissingExtraError if a package is missing that a controller's address needs."""
    for controller in config.controllers.values():
        if controller.listen is not None:
            Listener(*controller.listen)
        else:
            TracerClient(controller.url or "")


class Gateway:
    """One service. *path* is the file of *config*, to be read again.

    *on_start* is called when everything runs, *on_stop* when the end begins.
    """

    def __init__(
        self,
        path: Path,
        config: GatewayConfig,
        *,
        make_output: MakeOutput = make_output,
        on_start: Callable[[], None] = lambda: None,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self.stopped_by: signal.Signals | None = None
        """The signal that ended the service."""
        self._path = path
        self._config = config
        self._on_start = on_start
        self._on_stop = on_stop
        self._secrets = secrets_of(config)
        zone = None if config.time_zone is None else ZoneInfo(config.time_zone)
        self._ledger = EnergyLedger(
            config.state_directory / "energy.json", zone=zone, flush_seconds=config.energy.flush_seconds
        )
        self._hub = Hub(self._ledger)
        self._outputs = OutputSet(self._hub, make_output)
        self._stop = asyncio.Event()
        self._changed = asyncio.Event()

    def stop(self, signum: signal.Signals | None = None) -> None:
        """Let `run` end."""
        self.stopped_by = signum
        self._stop.set()

    def reload(self) -> None:
        """Read the configuration again, soon."""
        self._changed.set()

    async def run(self) -> None:
        """Run until `stop` or a signal. Raises GatewayError if it cannot start, or if a part of it ended."""
        self._open_state()
        with _signals(self):
            try:
                await self._run()
            finally:
                self._on_stop()
                systemd.notify("STOPPING=1")
                await self._shut_down()

    def _open_state(self) -> None:
        directory = self._config.state_directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._ledger.load()
        except BlockingIOError:
            raise GatewayError(
                f"Another gateway uses {directory}. Stop it, or set state_directory to another folder."
            ) from None
        except OSError as error:
            raise GatewayError(f"the state directory {directory} cannot be used: {error.strerror or error}") from error

    async def _run(self) -> None:
        check_controllers(self._config)
        self._outputs.start(self._config, SECTIONS)
        await self._hub.apply(self._config.controllers)
        _log.info("started: %s", summary(self._config))
        systemd.notify("READY=1")
        self._on_start()
        parts = {
            asyncio.create_task(part, name=f"gateway {name}"): name
            for name, part in {
                "polling": self._hub.run(),
                "counting energy": self._ledger.run(),
                "reading the configuration again": self._keep_reloading(),
                "reporting": self._keep_reporting(),
            }.items()
        }
        stop = asyncio.create_task(self._stop.wait(), name="gateway stop")
        try:
            await asyncio.wait([stop, *parts], return_when=asyncio.FIRST_COMPLETED)
            for part, name in parts.items():
                if part.done():
                    _log.critical("%s ended", name, exc_info=part.exception())
                    raise GatewayError(f"internal error: {name} ended: {part.exception()!r}") from part.exception()
        finally:
            for task in (stop, *parts):
                task.cancel()
            await asyncio.wait([stop, *parts], timeout=_CLOSE_SECONDS)

    async def _shut_down(self) -> None:
        """Close the lines, and then let everything write what it holds, all at the same time."""
        await _limited(_CLOSE_SECONDS, polling=self._hub.aclose())
        await _limited(_FINISH_SECONDS, outputs=self._outputs.aclose(), energy=self._ledger.aclose())

    # Changes

    async def _keep_reloading(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            systemd.notify_reloading()
            await self._reload()
            systemd.notify("READY=1")

    async def _reload(self) -> None:
        """Apply the file as it is now. If it cannot be applied, everything stays as it is."""
        try:
            config = await asyncio.to_thread(_load_again, self._path)
            check_controllers(config)
            self._warn_about_fixed(config)
            config = config.model_copy(update={name: getattr(self._config, name) for name in _FIXED})
            sections = self._outputs.changed(self._config, config)
            self._secrets |= secrets_of(config)
            configure_logging(self._config.log, self._secrets)
            self._outputs.check(config, sections)
        except ConfigError as error:
            for line in error.errors:
                _log.error("%s", line)
            _log.error("%s has errors and was not applied", self._path)
        except Exception as error:  # noqa: BLE001  # whatever an output does not accept in its section
            _log.error("%s was not applied: %s", self._path, error)
        else:
            await self._apply(config, sections)

    async def _apply(self, config: GatewayConfig, sections: list[str]) -> None:
        configure_logging(config.log, self._secrets)
        await self._outputs.stop(sections)
        try:
            await self._hub.apply(config.controllers)
        finally:
            self._config = config
            self._outputs.start(config, sections)
        # Owners renew certificates, and the configuration stays as it is.
        await self._outputs.reread_files()
        _log.info("%s was applied: %s", self._path, summary(config))

    def _warn_about_fixed(self, config: GatewayConfig) -> None:
        changed = [text for name, text in _FIXED.items() if getattr(config, name) != getattr(self._config, name)]
        if changed:
            text = "%s: not applied because it needs a restart of the gateway: %s"
            _log.warning(text, self._path, ", ".join(changed))

    # Reports

    async def _keep_reporting(self) -> None:
        """Tell systemd what works. Its watchdog hears of us only while readings come."""
        watchdog = systemd.watchdog_interval()
        interval = min(watchdog or _REPORT_SECONDS, _REPORT_SECONDS)
        consequence = "restart the service" if watchdog is None else "systemd restarts the service after WatchdogSec"
        stalled = False
        while True:
            if self._hub.is_polling():
                stalled = False
                systemd.notify("WATCHDOG=1", f"STATUS={self._status()}")
            elif not stalled:
                stalled = True
                _log.error("no readings and no errors any more: polling has stopped; %s", consequence)
            await asyncio.sleep(interval)

    def _status(self) -> str:
        controllers = self._hub.all()
        events = [self._hub.latest(controller.name) for controller in controllers]
        online = sum(event is not None and event.is_online(uptime()) for event in events)
        failing = [state.name for state in self._hub.outputs() if state.error is not None]
        problem = f"; not working: {', '.join(failing)}" if failing else ""
        return f"{online} of {len(controllers)} controllers online{problem}"


def summary(config: GatewayConfig) -> str:
    """Return in a few words what a configuration has."""
    outputs = [section for section in SECTIONS if getattr(config, section) is not None]
    number = len(config.controllers)
    return f"{number} controller{'' if number == 1 else 's'}; outputs: {', '.join(outputs) or 'none'}"


def _load_again(path: Path) -> GatewayConfig:
    """Read the configuration. A pipe is refused: to wait for its writer would delay all later changes."""
    if path.is_fifo():
        raise ConfigError(path, ["cannot be read again: it is a pipe"])
    return load_config(path)


async def _limited(seconds: float, **endings: Coroutine[Any, Any, None]) -> None:
    """Run all of *endings* at the same time, for at most *seconds*. Their errors are logged."""
    tasks = [asyncio.create_task(ending, name=name) for name, ending in endings.items()]
    await asyncio.wait(tasks, timeout=seconds)
    for task in tasks:
        if not task.done():
            _log.error("%s: not ended after %g s; what is not written yet is lost", task.get_name(), seconds)
            task.cancel()
        elif not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s: %s", task.get_name(), error)


@contextmanager
def _signals(gateway: Gateway) -> Iterator[None]:
    """Let signals stop the gateway, or make it read its configuration again."""
    loop = asyncio.get_running_loop()
    actions: dict[str, tuple[Callable[..., None], tuple[Any, ...]]] = {
        "SIGTERM": (gateway.stop, (signal.SIGTERM,)),
        "SIGINT": (gateway.stop, (signal.SIGINT,)),
        "SIGHUP": (gateway.reload, ()),
    }
    taken = []
    for name, (action, arguments) in actions.items():
        # Windows has no SIGHUP, and its event loops take no signals: Ctrl-C cancels `run` there. Nor do other threads.
        with suppress(AttributeError, NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(getattr(signal, name), action, *arguments)
            taken.append(getattr(signal, name))
    try:
        yield
    finally:
        for signum in taken:
            loop.remove_signal_handler(signum)
