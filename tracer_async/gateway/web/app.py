"""The routes of the web output, and the answers of the controllers. ``openapi.json`` is the reference of the routes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import tzinfo
from importlib.resources import files
from typing import Any

from aiohttp import web

from tracer_async import LoadRefusedError, LoadState, TracerError
from tracer_async.gateway import metrics
from tracer_async.gateway._clock import uptime
from tracer_async.gateway._load_outcome import certainly_not_switched, failure_text
from tracer_async.gateway._stalls import Stalls
from tracer_async.gateway.config import WebConfig
from tracer_async.gateway.events import Controller
from tracer_async.gateway.history.query import HistoryReader
from tracer_async.gateway.listening import ListensOnlyError
from tracer_async.gateway.output import Controllers
from tracer_async.gateway.web.access import Access
from tracer_async.gateway.web.connections import note_request
from tracer_async.gateway.web.guards import HostNames, add_headers, check_origin, errors_as_json
from tracer_async.gateway.web.history_api import HistoryApi
from tracer_async.gateway.web.parameters import json_body
from tracer_async.gateway.web.session_api import SessionApi
from tracer_async.gateway.web.streams import Streams
from tracer_async.gateway.web.views import controller_object, reason_of

__all__ = ["make_app"]

_log = logging.getLogger(__name__)

_BODY = 4096
_TYPES = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "json": "application/json",
    "svg": "image/svg+xml",
    "png": "image/png",
    "webmanifest": "application/manifest+json",
}
# Seconds in which a load must be switched. The page that asked may be gone: the load must not be switched much later.
_LOAD_SECONDS = 10.0
_PUBLIC = frozenset({"/", "/healthz", "/readyz", "/api/session", "/api/openapi.json"})


def make_app(
    config: WebConfig,
    controllers: Controllers,
    streams: Streams,
    *,
    history: HistoryReader | None,
    zone: tzinfo | None,
) -> web.Application:
    """Return the application with all its routes."""
    site = _Site(config, controllers, streams, history=history, zone=zone)
    app = web.Application(middlewares=[note_request, errors_as_json, site.guard], client_max_size=_BODY)
    app.on_response_prepare.append(add_headers)

    async def end_streams(_: web.Application) -> None:
        streams.close()

    app.on_shutdown.append(end_streams)
    app.cleanup_ctx.append(site.watch_stalls)
    app.add_routes(
        [
            web.get("/", _static("index.html")),
            web.get("/healthz", site.healthz),
            web.get("/readyz", site.readyz),
            web.get("/metrics", site.metrics),
            web.get("/api/openapi.json", _static("openapi.json")),
            web.get("/api/session", site.sessions.session),
            web.post("/api/session", site.sessions.log_in),
            web.delete("/api/session", site.sessions.log_out),
            web.get("/api/controllers", site.controllers),
            web.get("/api/controllers/{name}", site.controller),
            web.post("/api/controllers/{name}/load", site.switch_load),
            web.get("/api/controllers/{name}/history", site.history.history),
            web.get("/api/controllers/{name}/energy", site.history.energy),
            web.get("/api/events", site.events, allow_head=False),
        ]
    )
    for file in files("tracer_async.gateway.web").joinpath("static").iterdir():
        if file.name.rpartition(".")[2] in _TYPES:
            app.router.add_get(f"/static/{file.name}", _static(file.name))
    return app


def _static(name: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return a handler for one file of the package. It is read once: nothing else can be reached by a path."""
    body = files("tracer_async.gateway.web").joinpath("static", name).read_bytes()

    async def answer(_: web.Request) -> web.Response:
        return web.Response(
            body=body,
            content_type=_TYPES[name.rpartition(".")[2]],
            charset="utf-8",
            headers={"Cache-Control": "no-cache"},
        )

    return answer


def _not_done(status: int, reason: str, *, certain: bool) -> web.Response:
    """Return the answer to a switch that failed. Its code says whether the load may have been switched."""
    return web.json_response({"error": reason, "code": "not_switched" if certain else "unknown"}, status=status)


class _Site:
    def __init__(
        self,
        config: WebConfig,
        controllers: Controllers,
        streams: Streams,
        *,
        history: HistoryReader | None,
        zone: tzinfo | None,
    ) -> None:
        self._controllers = controllers
        self._streams = streams
        self._zone = zone
        self.sessions = SessionApi(config, has_history=history is not None)
        self.history = HistoryApi(history, self._named, zone)
        self._hosts = HostNames(config.hosts)
        self._switching: set[str] = set()
        self._stalls = Stalls()

    async def watch_stalls(self, _: web.Application) -> AsyncIterator[None]:
        """Notice when this process does not run. A request that arrives just then waits in the socket."""
        watching = asyncio.create_task(self._stalls.watch())
        yield
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching

    @web.middleware
    async def guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Let a request through only if its host, its origin and its access are right."""
        self._hosts.check(request)
        if request.method not in {"GET", "HEAD"}:
            check_origin(request)
        resource = request.match_info.route.resource  # None: there is no such page
        if resource is None or not (resource.canonical in _PUBLIC or resource.canonical.startswith("/static/")):
            self.sessions.require(request, Access.READ)
        return await handler(request)

    # Health

    async def healthz(self, _: web.Request) -> web.Response:
        """The process is alive."""
        return web.json_response({"alive": True})

    async def readyz(self, request: web.Request) -> web.Response:
        """There is a reading, and all outputs work. Who may read learns what is missing."""
        waiting = [state.name for state in self._controllers.outputs() if not state.connected]
        if not any(self._is_online(controller) for controller in self._controllers.all()):
            waiting.append("controllers")
        answer: dict[str, Any] = {"ready": not waiting}
        if self.sessions.access(request) >= Access.READ:
            answer["waiting_for"] = waiting
            if notices := {state.name: state.notice for state in self._controllers.outputs() if state.notice}:
                answer["notices"] = notices
        return web.json_response(answer, status=503 if waiting else 200)

    def _is_online(self, controller: Controller) -> bool:
        event = self._controllers.latest(controller.name)
        return event is not None and event.is_online(uptime())

    async def metrics(self, _: web.Request) -> web.Response:
        """The metrics for Prometheus."""
        body = await metrics.render(self._controllers)
        return web.Response(body=body, headers={"Content-Type": metrics.CONTENT_TYPE})

    # Controllers

    def _find(self, name: str) -> Controller | None:
        return next((controller for controller in self._controllers.all() if controller.name == name), None)

    def _named(self, request: web.Request) -> Controller:
        controller = self._find(request.match_info["name"])
        if controller is None:
            raise web.HTTPNotFound(text="there is no such controller")
        return controller

    def _view(self, controller: Controller) -> dict[str, Any]:
        event = self._controllers.latest(controller.name)
        return controller_object(controller, event, now=time.time(), monotonic=uptime(), zone=self._zone)

    async def controllers(self, _: web.Request) -> web.Response:
        """Return the state of all controllers."""
        return web.json_response({"controllers": [self._view(each) for each in self._controllers.all()]})

    async def controller(self, request: web.Request) -> web.Response:
        """Return the state of one controller."""
        return web.json_response(self._view(self._named(request)))

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Return a stream of the states of all controllers."""
        return await self._streams.serve(request, {each.name: self._view(each) for each in self._controllers.all()})

    async def switch_load(self, request: web.Request) -> web.Response:
        """Switch the load; answer what the controller confirmed."""
        self.sessions.require(request, Access.SWITCH)
        controller = self._named(request)
        body = await json_body(request)
        on = body.get("on")
        if not isinstance(on, bool) or set(body) != {"on"}:
            raise web.HTTPBadRequest(text='send {"on": true} or {"on": false}')
        if controller.name in self._switching:
            return _not_done(409, "the load is being switched at this moment", certain=True)
        waited = self._stalls.waited()
        if waited >= _LOAD_SECONDS:
            reason = f"the gateway was suspended or blocked, so the request may be {waited:.1f} s old; send it again"
            _log.warning("%s: the load was not switched %s: %s", controller.name, "on" if on else "off", reason)
            return _not_done(503, reason, certain=True)
        self._switching.add(controller.name)
        try:
            # A client that goes away must not interrupt a switch half way.
            state = await asyncio.shield(self._set_load(controller.name, on, _LOAD_SECONDS - waited))
        except KeyError:  # it was removed meanwhile
            raise web.HTTPNotFound(text="there is no such controller") from None
        except TracerError as error:
            status = 409 if isinstance(error, LoadRefusedError | ListensOnlyError) else 502
            return _not_done(status, reason_of(error), certain=certainly_not_switched(error))
        present = self._find(controller.name)  # it may have been removed after the switch was confirmed
        return web.json_response(
            {"load_on": bool(state), "controller": None if present is None else self._view(present)}
        )

    async def _set_load(self, name: str, on: bool, within: float) -> LoadState:
        try:
            return await self._controllers.set_load(name, on, within=within)
        except Exception as error:
            _log.warning("%s", failure_text(name, on, error))
            raise
        finally:
            self._switching.discard(name)
