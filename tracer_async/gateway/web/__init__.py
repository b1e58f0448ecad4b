"""The web output: dashboard, JSON API, event streams, and the metrics for Prometheus."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from datetime import tzinfo
from typing import Any

from aiohttp import web

from tracer_async.gateway._clock import uptime
from tracer_async.gateway.config import WebConfig
from tracer_async.gateway.events import Controller, ControllerEvent
from tracer_async.gateway.history.query import HistoryReader
from tracer_async.gateway.output import Controllers, Output
from tracer_async.gateway.web.app import make_app
from tracer_async.gateway.web.connections import Connections, listening_sockets
from tracer_async.gateway.web.guards import reachable_host
from tracer_async.gateway.web.streams import Streams
from tracer_async.gateway.web.views import controller_object

__all__ = ["WebOutput"]

_log = logging.getLogger(__name__)


class WebOutput(Output):
    """Serves the dashboard. ``url`` is its address, once it listens."""

    def __init__(
        self, config: WebConfig, controllers: Controllers, *, history: HistoryReader | None, zone: tzinfo | None
    ) -> None:
        super().__init__("web")
        self._config = config
        self._controllers = controllers
        self._history = history
        self._zone = zone
        self._streams = Streams()
        self._connections: Connections | None = None
        self.url: str | None = None
        self.listening: asyncio.Event = asyncio.Event()
        """Set as soon as `url` is known."""

    def publish(self, event: ControllerEvent) -> None:
        """Pass an event on to the event streams."""
        name = event.controller.name
        self._streams.publish(name, lambda: self._view(event.controller, event))
        self.state.delivered += 1

    def add(self, controller: Controller) -> None:
        """Show a new controller, or a new title, to the event streams."""
        latest = self._controllers.latest(controller.name)
        self._streams.publish(controller.name, lambda: self._view(controller, latest))

    def remove(self, controller: Controller) -> None:
        """Tell the event streams that a controller is gone."""
        self._streams.publish_removal(controller.name)

    async def reread_files(self) -> None:
        """Use the certificate as it is now for new connections. If it cannot be used, the old one stays in use."""
        connections = self._connections
        if connections is None or connections.tls is None:
            return
        try:
            connections.tls = await asyncio.to_thread(_tls, self._config)
        except OSError as error:
            _log.error("web: the certificate was not replaced, the old one stays in use: %s", error)
        else:
            _log.info("web: the certificate was read again")

    def _view(self, controller: Controller, event: ControllerEvent | None) -> dict[str, Any]:
        return controller_object(controller, event, now=time.time(), monotonic=uptime(), zone=self._zone)

    async def run(self) -> None:
        """Listen until cancelled. Raises OSError if the address is not free."""
        config = self._config
        self._streams = Streams()
        app = make_app(config, self._controllers, self._streams, history=self._history, zone=self._zone)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        sockets: list[socket.socket] = []
        try:
            assert runner.server is not None  # noqa: S101  # set up above
            connections = Connections(runner.server, _tls(config))
            sockets = await listening_sockets(config.host, config.port)
            self._connections = connections
            self._announce(sockets[0].getsockname()[1])
            await connections.accept(sockets)
        finally:
            self.listening.clear()
            self._connections = None
            for sock in sockets:
                sock.close()
            self._streams.close()
            await runner.cleanup()

    def _announce(self, port: int) -> None:
        host = reachable_host(self._config.host)
        host = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if self._config.cert_file else 'http'}://{host}:{port}/"
        self.listening.set()
        self.state.works()
        _log.info("dashboard: %s", self.url)


def _tls(config: WebConfig) -> ssl.SSLContext | None:
    """Return a context with the certificate that is in the files now. Raises OSError."""
    if config.cert_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # Without a password, OpenSSL would ask for that of an encrypted key, on the terminal.
        context.load_cert_chain(config.cert_file, config.key_file, password="")
    except (OSError, ValueError) as error:
        raise OSError(f"cert_file {config.cert_file}, key_file {config.key_file}: {error}") from None
    return context
