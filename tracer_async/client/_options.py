"""The options of a client, checked and sorted by who needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypedDict

from tracer_async.protocol import SessionOptions
from tracer_async.protocol._numbers import check_backoff, check_number, check_whole
from tracer_async.transport.address import SerialAddress, SimAddress, parse_address
from tracer_async.transport.opening import TransportFactory, transport_factory

if TYPE_CHECKING:
    import ssl

__all__ = ["ClientOptions", "Target"]


class ClientOptions(TypedDict, total=False):
    """The options of `TracerClient`, as `Fleet.add` passes them on; see there."""

    controller_id: int
    timeout: float
    retries: int
    fence: float
    connect_timeout: float
    backoff: tuple[float, float]
    max_timeouts: int
    start_up: bool
    ssl_context: ssl.SSLContext | None


class Target(NamedTuple):
    """Which controller a client is for, and how it is reached."""

    session: SessionOptions
    factory: TransportFactory
    backoff: tuple[float, float]
    """Initial and maximum delay between attempts to connect, in seconds."""

    @classmethod
    def of(
        cls,
        url: str | TransportFactory,
        *,
        controller_id: int,
        timeout: float,
        retries: int,
        fence: float,
        connect_timeout: float,
        backoff: tuple[float, float],
        max_timeouts: int,
        start_up: bool,
        ssl_context: ssl.SSLContext | None,
    ) -> Target:
        """Check the options of a client. Raises TypeError, ValueError, AddressError, MissingExtraError."""
        # The checked values are used: a subclass of int or float may do its own arithmetic.
        controller_id = check_whole("controller_id", controller_id)
        timeout = check_number("timeout", timeout)
        connect_timeout = check_number("connect_timeout", connect_timeout)
        fence = check_number("fence", fence)
        retries = check_whole("retries", retries)
        max_timeouts = check_whole("max_timeouts", max_timeouts)
        if callable(url):
            name, factory, on_network = getattr(url, "__name__", type(url).__name__), url, True
        else:
            address = parse_address(url)
            name, factory = str(address), transport_factory(address, ssl_context=ssl_context)
            on_network = not isinstance(address, SerialAddress | SimAddress)
        session = SessionOptions(
            name=name,
            controller_id=controller_id,
            start_up=start_up,
            timeout=timeout,
            retries=retries,
            fence=fence,
            link_timeout=connect_timeout,
            max_timeouts=max_timeouts if on_network else None,
        )
        return cls(session, factory, check_backoff(backoff))
