"""Tries other baud rates on a serial port, with requests that change nothing."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from tracer_async.doctor._contents import MODBUS_REQUEST, REQUEST, Contents
from tracer_async.doctor._findings import Finding, finding
from tracer_async.doctor._probe import Probe, open_probe
from tracer_async.errors import LinkError
from tracer_async.transport import SerialAddress

__all__ = ["ask_modbus", "find_rate"]

# The likely ones first: 9600 is the rate of the MT-5 port, 115200 that of later controllers with Modbus.
_RATES = (9600, 115200, 19200, 57600, 38400, 4800, 2400, 1200)

# Seconds that a controller may take, and the bits of the longest request and reply.
_MARGIN = 0.35
_BITS = 60 * 10


async def find_rate(address: SerialAddress) -> Finding | None:
    """Return a finding if frames, of this protocol or of Modbus, appear at some baud rate."""
    for rate in _RATES:
        with suppress(LinkError):  # the adapter may not have this rate
            async with open_probe(replace(address, baudrate=rate)) as probe:
                seconds = _MARGIN + _BITS / rate
                probe.send(REQUEST)
                await probe.wait(seconds, lambda data: Contents.of(data).frames)
                if Contents.of(probe.data).frames:
                    return _rate_found(address, rate)
                if modbus := await ask_modbus(probe, seconds):
                    return finding("line-modbus", f"at {rate} baud: {modbus}")
    return None


def _rate_found(address: SerialAddress, rate: int) -> Finding:
    right = replace(address, baudrate=rate)
    evidence = f"frames appear at {rate} baud, and not at {address.baudrate}"
    if rate == address.baudrate:
        # They did not appear in the first three attempts.
        return finding("line-damaged", f"a frame came only in the fourth attempt at {rate} baud")
    return finding("line-baud-rate", evidence, advice=f"Write {right} as the URL.")


async def ask_modbus(probe: Probe, seconds: float) -> str:
    """Send a Modbus reading. Return the Modbus frame that comes, in hexadecimal, or nothing."""
    probe.clear()
    probe.send(MODBUS_REQUEST)
    await probe.wait(seconds, lambda data: Contents.of(data).modbus)
    return Contents.of(probe.data).modbus
