"""The routes of the history: what was measured, and the energy of each day."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo

from aiohttp import web

from tracer_async.gateway.events import Controller
from tracer_async.gateway.history.query import HistoryReader
from tracer_async.gateway.web.parameters import day_of, moment_of, step_of
from tracer_async.gateway.web.views import days_object, series_object

__all__ = ["HistoryApi"]


class HistoryApi:
    """Answers from *history*; None if none is configured. *named* returns the controller that a request names."""

    def __init__(
        self, history: HistoryReader | None, named: Callable[[web.Request], Controller], zone: tzinfo | None
    ) -> None:
        self._history = history
        self._named = named
        self._zone = zone

    def _database(self) -> HistoryReader:
        if self._history is None:
            raise web.HTTPNotFound(text="no history is configured")
        return self._history

    async def history(self, request: web.Request) -> web.Response:
        """Return what was measured between two moments."""
        history, controller = self._database(), self._named(request)
        end = moment_of(request, "to", time.time())
        start = moment_of(request, "from", end - 6 * 3600)
        step = step_of(request)
        if not start < end:
            raise web.HTTPBadRequest(text="from must be before to")
        try:
            series = await history.series(controller.id, start, end, step)
        except OSError as error:
            raise web.HTTPServiceUnavailable(text="the database does not answer") from error
        return web.json_response(series_object(series))

    async def energy(self, request: web.Request) -> web.Response:
        """Return the energy of each day."""
        history, controller = self._database(), self._named(request)
        today = datetime.now(UTC).astimezone(self._zone).date()
        last = day_of(request, "to", today)
        first = day_of(request, "from", last - timedelta(days=30) if last > date.min + timedelta(days=30) else last)
        if first > last or (last - first).days > 3660:
            raise web.HTTPBadRequest(text="from must be before to, by at most ten years")
        try:
            days = await history.days(controller.id, first, last)
        except OSError as error:
            raise web.HTTPServiceUnavailable(text="the database does not answer") from error
        return web.json_response(days_object(days))
