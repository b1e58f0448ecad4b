"""Bytes on a wire: addresses, how they are opened, and the protocol object that asyncio's transports talk to."""

from tracer_async.transport.address import (
    Address,
    SerialAddress,
    SimAddress,
    TcpAddress,
    UnixAddress,
    parse_address,
)
from tracer_async.transport.opening import TransportFactory

__all__ = [
    "Address",
    "SerialAddress",
    "SimAddress",
    "TcpAddress",
    "TransportFactory",
    "UnixAddress",
    "parse_address",
]
