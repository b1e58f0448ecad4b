"""The options of a client: checks them, and splits them into those of the session and those of the connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypedDict

from tracer_async.protocol import SessionOptions
from tracer_async.protocol._numbers import check_backoff, check_number, check_whole
from tracer_async.transport._opening import TransportFactory, transport_factory
from tracer_async.transport.address import SerialAddress, SimAddress, parse_address

if TYPE_CHECKING:
    import ssl

__all__ = ["ClientOptions", "Target"]


class ClientOptions(TypedDict, total=False):
    """The options of `TracerClient`, which describes them. `Fleet.add` takes them too."""

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
    """The controller of a client, and how to connect to it."""

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
        # `SessionOptions` checks the others. It has another name for the first of these two, and does not get the
        # second one for a serial port.
        connect_timeout = check_number("connect_timeout", connect_timeout)
        max_timeouts = check_whole("max_timeouts", max_timeouts)
        if callable(url):
            name, factory, on_network = getattr(url, "__name__", type(url).__name__), url, True
        else:
            address = parse_address(url)
            name, factory = str(address), transport_factory(address, ssl_context=ssl_context)
            # Only on a network can the other side disappear without notice. A serial port reports that it is gone.
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
