"""Server-sent events: each stream gets the newest state of every controller, as fast as its reader takes it.

A stream holds at most one state of each controller, so a slow reader costs no more memory than a quick one: it misses
states in between. States that come within 0.25 s are sent together.

The ID of each message is the time for which it is true, in seconds since 1970. A page that slept gets messages late; it
can tell by the IDs. A stream is never silent for longer than 15 s, so that a page notices a connection that is dead.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

from tracer_async.gateway.web.connections import call_when_lost

__all__ = ["Streams"]

_PAUSE = 0.25
_KEEP_ALIVE = 15.0


class Streams:
    """All event streams of the web output."""

    def __init__(self, most: int = 250) -> None:
        self._most = most
        self._streams: set[_Stream] = set()
        self._closing = False

    def __len__(self) -> int:
        return len(self._streams)

    def publish(self, name: str, view: Callable[[], dict[str, Any]]) -> None:
        """Send what *view* returns, the state of the controller *name*, to every stream. Encoded once for all."""
        if self._streams:
            message = _message("controller", view())
            for stream in self._streams:
                stream.put(name, message)

    def publish_removal(self, name: str) -> None:
        """Tell every stream that a controller is gone."""
        message = _message("removed", {"name": name})
        for stream in self._streams:
            stream.put(name, message)

    def close(self) -> None:
        """End all streams."""
        self._closing = True
        for stream in self._streams:
            stream.end()

    async def serve(self, request: web.Request, views: dict[str, dict[str, Any]]) -> web.StreamResponse:
        """Answer a request with a stream that begins with *views*, the present state of each controller.

        Raises HTTPServiceUnavailable if there are too many streams.
        """
        if self._closing or len(self._streams) >= self._most:
            raise web.HTTPServiceUnavailable(
                text="there are too many event streams: try again later", headers={"Retry-After": "30"}
            )
        stream = _Stream()
        call_when_lost(request, stream.end)  # an idle stream must not keep its place
        for name, view in views.items():
            stream.put(name, _message("controller", view))
        self._streams.add(stream)
        try:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
            await response.prepare(request)
            await stream.send_to(response)
        except ConnectionError:
            pass  # the client has left, or does not read
        finally:
            self._streams.discard(stream)
        return response


def _message(event: str, data: dict[str, Any]) -> bytes:
    text = json.dumps(data, separators=(",", ":"))
    return f"id: {time.time():.3f}\nevent: {event}\ndata: {text}\n\n".encode()


class _Stream:
    __slots__ = ("_ended", "_filled", "_messages")

    def __init__(self) -> None:
        self._messages: dict[str, bytes] = {}
        self._filled = asyncio.Event()
        self._ended = False

    def put(self, name: str, message: bytes) -> None:
        self._messages.pop(name, None)
        self._messages[name] = message
        self._filled.set()

    def end(self) -> None:
        self._ended = True
        self._filled.set()

    async def send_to(self, response: web.StreamResponse) -> None:
        """Send messages until the gateway ends, or the client leaves. May raise ConnectionError if it leaves."""
        # The browser comes back after 3 s. The comment makes proxies pass the headers on.
        await response.write(b"retry: 3000\n: tracer-async\n\n")
        while not self._ended:
            try:
                async with asyncio.timeout(_KEEP_ALIVE):
                    await self._filled.wait()
            except TimeoutError:
                self._messages[""] = _message("alive", {})
            self._filled.clear()
            batch = b"".join(self._messages.values())
            self._messages.clear()
            if batch:
                await response.write(batch)
                await asyncio.sleep(_PAUSE)
