"""What a request says: its JSON body, and the parameters of its query. What is wrong is answered with the reason."""

from __future__ import annotations

import asyncio
import json
import math
from datetime import date, datetime
from typing import Any

from aiohttp import web

__all__ = ["day_of", "json_body", "moment_of", "step_of"]

_BODY_SECONDS = 10.0


async def json_body(request: web.Request) -> dict[str, Any]:
    """Return the body, a JSON object. Raises HTTPBadRequest, HTTPUnsupportedMediaType or HTTPRequestTimeout."""
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="send application/json")
    if "Content-Encoding" in request.headers:
        raise web.HTTPUnsupportedMediaType(text="send the body without compression")
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            # JSON is UTF-8, whatever charset the client names.
            body = json.loads((await request.read()).decode())
    except (ValueError, RecursionError):
        raise web.HTTPBadRequest(text="the body is not valid JSON") from None
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="the body did not come within 10 s") from None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="the body must be a JSON object")
    return body


def moment_of(request: web.Request, name: str, default: float) -> float:
    """Return a parameter that is seconds since 1970, or ISO 8601 with an offset. Raises HTTPBadRequest."""
    text = request.query.get(name)
    if text is None:
        return default
    try:
        moment = float(text) if not text.count("-") > 1 else _from_iso(text)
    except (ValueError, OverflowError):
        moment = math.nan
    if not 0 <= moment < 253_402_300_800:  # the year 10000
        raise web.HTTPBadRequest(text=f"{name} must be seconds since 1970, or ISO 8601 such as 2026-06-01T12:00:00Z")
    return moment


def _from_iso(text: str) -> float:
    moment = datetime.fromisoformat(text.replace(" ", "+"))  # a + in a query is read as a space
    if moment.tzinfo is None:
        raise ValueError("no offset")
    return moment.timestamp()


def step_of(request: web.Request) -> float | None:
    """Return the parameter ``step`` in seconds; None if there is none. Raises HTTPBadRequest."""
    text = request.query.get("step")
    if text is None:
        return None
    try:
        step = float(text)
    except ValueError:
        step = math.nan
    if not 1 <= step <= 31 * 86_400:
        raise web.HTTPBadRequest(text="step must be 1 to 2678400 seconds")
    return step


def day_of(request: web.Request, name: str, default: date) -> date:
    """Return a parameter that is a day. Raises HTTPBadRequest."""
    text = request.query.get(name)
    try:
        return default if text is None else date.fromisoformat(text)
    except ValueError:
        raise web.HTTPBadRequest(text=f"{name} must be a day such as 2026-06-01") from None
