"""The routes of a session: log-in, log-out, and what a client may do. The other routes ask here, too."""

from __future__ import annotations

from aiohttp import web

from tracer_async.gateway.config import WebConfig
from tracer_async.gateway.web.access import (
    SESSION_SECONDS,
    Access,
    LoginDelays,
    Sessions,
    access_of,
    log_in,
    with_local_rights,
)
from tracer_async.gateway.web.parameters import json_body

__all__ = ["SessionApi"]


class SessionApi:
    """Says what clients may do. *has_history* is what a session says about the history."""

    def __init__(self, config: WebConfig, *, has_history: bool) -> None:
        self._host = config.host
        self._has_history = has_history
        self._sessions = Sessions(config)
        self._delays = LoginDelays()

    def access(self, request: web.Request) -> Access:
        """Return what the client of a request may do. Raises what `access_of` raises."""
        return access_of(request, self._sessions, self._delays, self._host)

    def require(self, request: web.Request, needed: Access) -> None:
        """Raise HTTPUnauthorized or HTTPForbidden unless the client may do *needed*; or what `access_of` raises."""
        access = self.access(request)
        if access >= needed:
            return
        if access is Access.NONE:
            raise web.HTTPUnauthorized(text="log in, or send a token", headers={"WWW-Authenticate": "Bearer"})
        raise web.HTTPForbidden(text="switching the load needs the switching token")

    async def session(self, request: web.Request) -> web.Response:
        """Return what the client may do, and whether a token would allow more."""
        access = self.access(request)
        cookie = request.cookies.get(self._sessions.cookie_name, "")
        return web.json_response(
            {
                "logged_in": self._sessions.of_cookie(cookie) > Access.NONE,
                "read": access >= Access.READ,
                "switch": access >= Access.SWITCH,
                "token_helps": access < Access.READ or (access < Access.SWITCH and self._sessions.has_switch_token),
                "history": self._has_history,
            }
        )

    async def log_in(self, request: web.Request) -> web.Response:
        """Exchange a token for a session cookie."""
        body = await json_body(request)
        token = body.get("token")
        if not isinstance(token, str) or set(body) != {"token"}:
            raise web.HTTPBadRequest(text='send {"token": "..."}')
        access = log_in(token, request, self._sessions, self._delays)
        response = self._allowed(request, access)
        response.set_cookie(
            self._sessions.cookie_name,
            self._sessions.sign(access),
            max_age=SESSION_SECONDS,
            path="/",
            httponly=True,
            samesite="Strict",
            secure=self._sessions.secure,
        )
        return response

    async def log_out(self, request: web.Request) -> web.Response:
        """Delete the session cookie."""
        response = self._allowed(request, Access.READ if self._sessions.reading_is_free else Access.NONE)
        response.del_cookie(
            self._sessions.cookie_name, path="/", httponly=True, samesite="Strict", secure=self._sessions.secure
        )
        return response

    def _allowed(self, request: web.Request, access: Access) -> web.Response:
        """Return an answer that says what the client may do from now on."""
        access = with_local_rights(access, request, self._sessions, self._host)
        return web.json_response({"read": access >= Access.READ, "switch": access >= Access.SWITCH})
