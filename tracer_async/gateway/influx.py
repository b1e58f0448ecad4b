"""Writes readings as line protocol over HTTP: InfluxDB 1.x and 2.x, VictoriaMetrics, and others that take it.

A batch is sent every few seconds. While the server is away, readings wait in a bounded buffer. A batch may arrive
twice when a connection breaks; the server then writes the same points again, which changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode

from aiohttp import ClientError, ClientSession, ClientTimeout

from tracer_async.gateway._limited_log import LimitedLog
from tracer_async.gateway.config import InfluxConfig
from tracer_async.gateway.events import ControllerEvent
from tracer_async.gateway.output import EventQueue, Output
from tracer_async.records import line_protocol_point, to_record

__all__ = ["InfluxOutput"]

_log = logging.getLogger(__name__)

# Some 600 kB.
_BATCH = 2000
_TIMEOUT = ClientTimeout(total=10.0)
# A malformed point, a batch that is too large, and points outside of what the database keeps.
_REFUSED = frozenset({400, 413, 422})
# How much of an error page is quoted.
_QUOTED = 200
# Lines of the log about refused readings, in a minute.
_MAX_LINES = 30


class InfluxOutput(Output):
    """Sends readings to a time series database in batches."""

    def __init__(self, config: InfluxConfig) -> None:
        super().__init__("influx")
        self._config = config
        self._queue = EventQueue(self.state, config.buffer)
        # The controllers whose last reading was refused. The log has one line for each, not one for each reading.
        self._refused: set[str] = set()
        self._log = LimitedLog(_log, _MAX_LINES, "influx: too many readings are refused")
        self._url = config.url.rstrip("/")
        if config.org is None:
            self._url += "/write"
            self._parameters = {"db": config.database, "precision": "ns"}
        else:
            self._url += "/api/v2/write"
            self._parameters = {"org": config.org, "bucket": config.database, "precision": "ns"}

    def publish(self, event: ControllerEvent) -> None:
        """Take an event for the next batch."""
        self._queue.put(event)

    async def run(self) -> None:
        """Send batches until cancelled. Raises OSError if the server cannot be reached or refuses."""
        async with self._session() as session:
            while True:
                await self._queue.wait()
                await self._send_waiting(session)
                await asyncio.sleep(self._config.batch_seconds)

    async def drain(self) -> None:
        """Send what is left."""
        if self._queue:
            async with self._session() as session:
                await self._send_waiting(session)

    def take_left(self) -> list[ControllerEvent]:
        """Remove and return what could not be sent."""
        return self._queue.take(len(self._queue))

    def _session(self) -> ClientSession:
        config = self._config
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if config.token is not None:
            headers["Authorization"] = f"Token {config.token.get_secret_value()}"
        elif config.username is not None:
            password = config.password.get_secret_value() if config.password is not None else ""
            credentials = b64encode(f"{config.username}:{password}".encode()).decode()
            headers["Authorization"] = f"Basic {credentials}"
        return ClientSession(timeout=_TIMEOUT, headers=headers)

    async def _send_waiting(self, session: ClientSession) -> None:
        """Send batches until nothing waits."""
        limit = _BATCH
        accepted = False
        while self._queue:
            events = self._queue.take(limit)
            try:
                refusal = await self._send(session, events)
            except BaseException:
                self._queue.put_back(events)
                raise
            if refusal is None:
                accepted = True
                self.state.works()
                self.state.delivered += len(events)
                self._refused.difference_update(event.controller.name for event in events)
                limit = min(limit * 2, _BATCH)
            elif len(events) > 1:
                # Too large, or one point is wrong: find out which by halves, so that one point does not block the rest.
                self._queue.put_back(events)
                limit = len(events) // 2
            else:
                if not accepted:  # a server that refuses everything does not work
                    self.state.fails(refusal)
                self._drop(events[0].controller.name, refusal)

    def _drop(self, name: str, refusal: str) -> None:
        """Count a reading of the controller *name* as dropped."""
        self.state.dropped += 1
        if name not in self._refused:
            self._refused.add(name)
            text = "influx: a reading of %s is dropped: %s. The next ones are not logged until one is accepted"
            self._log.log(logging.WARNING, text, name, refusal)

    async def _send(self, session: ClientSession, events: list[ControllerEvent]) -> str | None:
        """Send one batch. Return why the server refuses these points for good; raise OSError if a retry may help."""
        body = "\n".join(map(_line, events)).encode()
        try:
            # A redirected POST becomes a GET, whose answer says nothing about the points.
            request = session.post(self._url, params=self._parameters, data=body, allow_redirects=False)
            async with request as response:
                if response.status < 300:
                    return None
                text = " ".join((await response.content.read(_QUOTED)).decode(errors="replace").split())
                if "Location" in response.headers:
                    text = f"it redirects to {response.headers['Location'][:_QUOTED]}; set url to the server itself"
        except (ClientError, TimeoutError) as error:
            reason = str(error) or "no answer within 10 s"
            raise OSError(f"{self._config.url} cannot be reached: {reason}") from None
        answer = f"{self._config.url} answered {response.status}: {text}"
        if response.status in _REFUSED:
            return answer
        raise OSError(answer)


def _line(event: ControllerEvent) -> str:
    record = to_record(event.controller.name, event.reading)
    del record["time"], record["address"]
    # Before the first totals are on the disk, they are unknown, not 0.
    if event.online and event.energy.day is not None:
        record["charge_energy"] = event.energy.charge
        record["load_energy"] = event.energy.load
    return line_protocol_point({"controller": event.controller.name}, record, event.reading.time)
