"""The options of a client: checks them, and splits them into those of the session and those of the connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypedDict

from tracer_async.protocol import SessionOptions
from tracer_async.protocol._numbers import check_backoff, check_number, check_whole
from tracer_async.transport._opening import TransportFactory, transport_factory
from tracer_async.transport.address import Address, SerialAddress, SimAddress, parse_address

if TYPE_CHECKING:
    import ssl

    from tracer_async.client._recording import LineRecorder

__all__ = ["ClientOptions", "Target", "is_on_network", "session_options"]


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
    recorder: LineRecorder | None


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
        if callable(url):
            name, factory, on_network = getattr(url, "__name__", type(url).__name__), url, True
        else:
            address = parse_address(url)
            name, factory = str(address), transport_factory(address, ssl_context=ssl_context)
            on_network = is_on_network(address)
        session = session_options(
            name,
            on_network=on_network,
            controller_id=controller_id,
            timeout=timeout,
            retries=retries,
            fence=fence,
            connect_timeout=connect_timeout,
            max_timeouts=max_timeouts,
            start_up=start_up,
        )
        return cls(session, factory, check_backoff(backoff))


def is_on_network(address: Address) -> bool:
    """Return whether the other side can disappear without notice. A serial port reports that it is gone."""
    return not isinstance(address, SerialAddress | SimAddress)


def session_options(
    name: str,
    *,
    on_network: bool,
    controller_id: int,
    timeout: float,
    retries: int,
    fence: float,
    connect_timeout: float,
    max_timeouts: int,
    start_up: bool,
) -> SessionOptions:
    """Return the options of a client's session. Raises TypeError, ValueError."""
    # `SessionOptions` checks the others. It has another name for the first of these two, and does not get the second
    # one for a serial port.
    connect_timeout = check_number("connect_timeout", connect_timeout)
    max_timeouts = check_whole("max_timeouts", max_timeouts)
    return SessionOptions(
        name=name,
        controller_id=controller_id,
        start_up=start_up,
        timeout=timeout,
        retries=retries,
        fence=fence,
        link_timeout=connect_timeout,
        max_timeouts=max_timeouts if on_network else None,
    )
