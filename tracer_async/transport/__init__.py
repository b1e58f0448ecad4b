"""Connections: addresses, how they are opened, and the protocol object that the asyncio transports call."""

from tracer_async.transport._opening import TransportFactory
from tracer_async.transport.address import (
    Address,
    SerialAddress,
    SimAddress,
    TcpAddress,
    UnixAddress,
    parse_address,
)

__all__ = [
    "Address",
    "SerialAddress",
    "SimAddress",
    "TcpAddress",
    "TransportFactory",
    "UnixAddress",
    "parse_address",
]
