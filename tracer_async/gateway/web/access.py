"""Who may read and who may switch: tokens, the session cookie, and the delay after failed log-ins.

The rules:

1. A reading token opens everything except the load switch, a switching token everything.
2. Without a reading token everybody who reaches the gateway may read. The configuration allows that on loopback
   addresses, or where ``auth = "none"`` is written out.
3. Without a switching token the load can be switched on loopback only: the gateway listens there, the client is there,
   and the browser asked for it there.
4. An Authorization header of another scheme than Bearer has the password of a proxy. It gives no rights, and a request
   with it does not count as one of this machine.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
from collections.abc import Callable
from enum import IntEnum

from aiohttp import web
from pydantic import SecretStr

from tracer_async.gateway._limited_log import LimitedLog
from tracer_async.gateway.config import WebConfig, is_loopback
from tracer_async.gateway.web.connections import network_of

__all__ = [
    "SESSION_SECONDS",
    "Access",
    "LoginDelays",
    "Sessions",
    "access_of",
    "bearer_token",
    "host_name",
    "log_in",
    "with_local_rights",
]

_log = logging.getLogger(__name__)

SESSION_SECONDS = 30 * 86_400
# Lines of the log about wrong tokens, in a minute.
_MAX_LINES = 5

_PROXY_HEADERS = ("forwarded", "x-forwarded-", "x-real-ip", "via", "cf-")


class Access(IntEnum):
    """What a client may do. Each level includes the ones before it."""

    NONE = 0
    READ = 1
    SWITCH = 2


class Sessions:
    """Checks tokens and signs session cookies. A cookie ends after 30 days, and when its token is changed."""

    def __init__(self, config: WebConfig, clock: Callable[[], float] = time.time) -> None:
        self._tokens = {
            level: _digest(token)
            for level, token in ((Access.SWITCH, config.switch_token), (Access.READ, config.token))
            if token is not None
        }
        self._clock = clock
        self.reading_is_free: bool = config.token is None
        self.has_switch_token: bool = config.switch_token is not None
        # Cookies belong to a host, not to a port: two gateways on one machine need different names.
        self.cookie_name: str = f"tracer_{config.port}" if config.cert_file is None else f"__Host-tracer_{config.port}"
        self.secure: bool = config.cert_file is not None

    def of_token(self, token: str) -> Access:
        """Return what a token allows. Takes the same time for each wrong one."""
        digest = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        # All are compared, so that the time does not show which one is right.
        levels = [level for level, expected in self._tokens.items() if hmac.compare_digest(digest, expected)]
        return max(levels, default=Access.NONE)

    def sign(self, level: Access) -> str:
        """Return the value of a cookie for a client that has shown the token of *level*."""
        expires = int(self._clock()) + SESSION_SECONDS
        return f"{level:d}.{expires}.{self._signature(level, expires)}"

    def of_cookie(self, cookie: str) -> Access:
        """Return what a cookie allows. One that is forged, damaged or too old allows nothing."""
        try:
            level_text, expires_text, signature = cookie.split(".")
            level, expires = Access(int(level_text)), int(expires_text)
        except ValueError:
            return Access.NONE
        if level not in self._tokens or not signature.isascii():
            return Access.NONE
        if not hmac.compare_digest(signature, self._signature(level, expires)) or self._clock() >= expires:
            return Access.NONE
        return level

    def _signature(self, level: Access, expires: int) -> str:
        return hmac.new(self._tokens[level], f"tracer session {level:d} {expires}".encode(), "sha256").hexdigest()


def _digest(token: SecretStr) -> bytes:
    return hashlib.sha256(token.get_secret_value().encode()).digest()


class LoginDelays:
    """Slows down guessing: after five wrong tokens an address must wait 1 s, then 2 s, and so on up to 60 s.

    While an address has to wait, its right token is refused as well: otherwise guesses would cost nothing.
    """

    _FREE = 5
    _LONGEST = 60.0
    _FORGET = 900.0
    _CAPACITY = 10_000

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # By address: the number of failures, and the time of the last one. The order is that of the last failures.
        self._failures: dict[str, tuple[int, float]] = {}
        self._log = LimitedLog(_log, _MAX_LINES, "web: too many wrong tokens")

    def wait_seconds(self, address: str) -> float:
        """Return how long *address* has to wait before it may try again; 0.0 if it may now."""
        count, last = self._failures.get(address, (0, 0.0))
        now = self._clock()
        if now - last > self._FORGET:
            self._failures.pop(address, None)
            return 0.0
        if count < self._FREE:
            return 0.0
        return max(last + min(2.0 ** (count - self._FREE), self._LONGEST) - now, 0.0)

    def failed(self, address: str) -> None:
        """Note a wrong token."""
        count, _ = self._failures.pop(address, (0, 0.0))
        self._failures[address] = (min(count + 1, 100), self._clock())
        if len(self._failures) > self._CAPACITY:
            del self._failures[next(iter(self._failures))]

    def report(self, client: str) -> None:
        """Log that the address *client* sent a wrong token. Needs an event loop."""
        self._log.log(logging.WARNING, "web: a log-in failed: wrong token from %s", client)

    def succeeded(self, address: str) -> None:
        """Forget the wrong tokens of an address."""
        self._failures.pop(address, None)


def access_of(request: web.Request, sessions: Sessions, delays: LoginDelays, listen_host: str) -> Access:
    """Return what the client of a request may do.

    Raises HTTPUnauthorized for a wrong token in the Authorization header, HTTPTooManyRequests after too many.
    """
    access = Access.READ if sessions.reading_is_free else Access.NONE
    access = max(access, sessions.of_cookie(request.cookies.get(sessions.cookie_name, "")))
    token = bearer_token(request)
    if token is not None:
        access = max(access, log_in(token, request, sessions, delays))
    return with_local_rights(access, request, sessions, listen_host)


def bearer_token(request: web.Request) -> str | None:
    """Return the token in the Authorization header; None without one.

    A header of another scheme has none. Browsers send those to a proxy that asks for a password, with requests of any
    page, and proxies pass them on.
    """
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def with_local_rights(access: Access, request: web.Request, sessions: Sessions, listen_host: str) -> Access:
    """Return *access*, or SWITCH if the client may read and, without a switching token, needs no more than that."""
    if access is Access.READ and not sessions.has_switch_token and is_local(request, listen_host):
        return Access.SWITCH
    return access


def log_in(token: str, request: web.Request, sessions: Sessions, delays: LoginDelays) -> Access:
    """Return what a token allows. Raises HTTPUnauthorized for a wrong one, HTTPTooManyRequests after too many."""
    address = network_of(request.remote or "")
    wait = delays.wait_seconds(address)
    if wait > 0:
        raise web.HTTPTooManyRequests(
            text="too many wrong tokens: wait and try again", headers={"Retry-After": str(int(wait) + 1)}
        )
    access = sessions.of_token(token)
    if access is Access.NONE:
        delays.failed(address)
        delays.report(request.remote or "an unknown address")
        raise web.HTTPUnauthorized(text="wrong token", headers={"WWW-Authenticate": "Bearer"})
    delays.succeeded(address)
    return access


def is_local(request: web.Request, listen_host: str) -> bool:
    """Return whether a request comes from this machine, without a proxy, to an address of this machine.

    A password that is no token is one for a proxy.
    """
    return (
        is_loopback(listen_host)
        and is_loopback(request.remote or "")
        and is_loopback(host_name(request.headers.get("Host", "")))
        and not any(name.lower().startswith(_PROXY_HEADERS) for name in request.headers)
        and ("Authorization" not in request.headers or bearer_token(request) is not None)
    )


_HOST = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::[0-9]{1,5})?")


def host_name(host: str) -> str:
    """Return a Host header without its port and brackets, in lower case; an empty string if it is not a valid one."""
    match = _HOST.fullmatch(host)
    return "" if match is None else (match["address"] or match["name"]).lower()
