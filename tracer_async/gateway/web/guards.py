"""What every request must pass before it is answered, and what every answer carries.

- The Host header must be an address, this machine's name, or a name of the configuration. A web page that points its
  own name to this machine (DNS rebinding) is refused by this.
- A request that changes something must come from a page of this gateway: its Origin is the Host, and it has the header
  ``X-Tracer-Async``, which a form of another page cannot send. With a token (scheme Bearer) in the Authorization header
  neither is needed: a browser does not send that one by itself. It does so with the password of a proxy (scheme Basic).
- An answer tells no version, no path and no stack trace.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Collection
from ipaddress import ip_address

from aiohttp import web

from tracer_async.gateway.web.access import bearer_token, host_name

__all__ = ["OWN_HEADER", "HostNames", "add_headers", "check_origin", "errors_as_json", "reachable_host"]

_log = logging.getLogger(__name__)

OWN_HEADER = "X-Tracer-Async"

# Everything comes from the gateway itself: no inline script, no inline style, nothing from the network.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; manifest-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "Server": "tracer-async",
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

# A longer host name is not repeated in an answer.
_LONGEST_NAME = 100

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HostNames:
    """The names by which browsers may reach the gateway."""

    def __init__(self, configured: Collection[str]) -> None:
        own = socket.gethostname().lower()
        self._names = {"localhost", own, f"{own.partition('.')[0]}.local", *(name.lower() for name in configured)}

    def __contains__(self, host: object) -> bool:
        """Return whether *host*, the value of a Host header, is one of them. Addresses always are."""
        if not isinstance(host, str):
            return False
        name = host_name(host)
        return name in self._names or _is_address(name)

    def check(self, request: web.Request) -> None:
        """Raise HTTPMisdirectedRequest if a Host header of *request* is none of them."""
        for host in request.headers.getall("Host", [""]):
            if host not in self:
                name = host_name(host)  # it has only letters, digits and punctuation
                which = f"The host name {name}" if 0 < len(name) <= _LONGEST_NAME else "This host name"
                raise web.HTTPMisdirectedRequest(text=f"{which} is not allowed. Add it to `hosts` in [web].")


def reachable_host(host: str) -> str:
    """Return *host*, or this machine's name if it means all addresses. No browser can open that one."""
    return socket.gethostname() if _is_address(host) and ip_address(host).is_unspecified else host


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def check_origin(request: web.Request) -> None:
    """Raise HTTPForbidden unless a changing request comes from a page of this gateway, or shows a token."""
    if bearer_token(request) is not None:
        return
    host = request.headers.get("Host", "").lower()
    # A proxy may end TLS in front of the gateway. If the gateway ends it, the page must have come through it.
    own = {f"https://{host}"} if request.secure else {f"http://{host}", f"https://{host}"}
    if request.headers.getall("Origin", []) not in [[origin] for origin in own]:
        raise web.HTTPForbidden(text="the request does not come from a page of this gateway")
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin" or OWN_HEADER not in request.headers:
        raise web.HTTPForbidden(text=f"the request lacks the header {OWN_HEADER}, or comes from another page")


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers that every answer carries."""
    response.headers.update(_HEADERS)
    if not request.path.startswith("/static/"):
        response.headers["Cache-Control"] = "no-store"


@web.middleware
async def errors_as_json(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Answer errors with a JSON object that has one sentence. An unexpected error is logged, and answered with 500."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        text = error.text if error.text and not error.text.startswith(f"{error.status}") else error.reason
        kept = {
            name: error.headers[name] for name in ("Retry-After", "WWW-Authenticate", "Allow") if name in error.headers
        }
        response = web.json_response({"error": text}, status=error.status, headers=kept)
        if isinstance(error, web.HTTPServiceUnavailable):
            response.force_close()  # who is refused must not keep a place among the connections
        return response
    except (ConnectionError, TimeoutError):
        raise
    except Exception:  # noqa: BLE001  # logged
        _log.exception("web: %s %s failed", request.method, request.path)
        return web.json_response({"error": "internal error; the gateway's log has the details"}, status=500)
