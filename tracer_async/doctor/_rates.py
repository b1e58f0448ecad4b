"""Tries other baud rates on a serial port, with requests that change nothing."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from tracer_async.doctor._contents import MODBUS_REQUEST, REQUEST, Contents
from tracer_async.doctor._findings import Finding, Severity, finding, unplugged
from tracer_async.doctor._probe import Probe, open_probe
from tracer_async.doctor._replies import are_other_answers, other_command
from tracer_async.errors import AddressError, LinkError
from tracer_async.transport import SerialAddress

__all__ = ["ask_modbus", "find_rate"]

# The likely ones first: 9600 is the rate of the MT-5 port, 115200 that of later controllers with Modbus.
_RATES = (9600, 115200, 19200, 57600, 38400, 4800, 2400, 1200)

# Seconds that a controller may take, and the bits of the longest request and reply.
_MARGIN = 0.35
_BITS = 60 * 10


async def find_rate(address: SerialAddress, requests: int) -> Finding | None:
    """Return a finding if frames, of this protocol or of Modbus, appear at some baud rate, or if the port is lost.

    *requests* is how many readings were requested before, at the rate of *address*.
    """
    for rate in _RATES:
        try:
            async with open_probe(replace(address, baudrate=rate)) as probe:
                seconds = _MARGIN + _BITS / rate
                probe.send(REQUEST)
                await probe.wait(seconds, lambda data: Contents.of(data).frames)
                contents = Contents.of(probe.data)
                if contents.frames and rate == address.baudrate:
                    return _of_another_request(contents, requests + 1)
                if contents.frames:
                    evidence = f"frames appear at {rate} baud, and not at {address.baudrate}"
                    right = replace(address, baudrate=rate)
                    return finding("line-baud-rate", evidence, advice=f"Write {right} as the URL.")
                if modbus := await ask_modbus(probe, seconds):
                    return finding("line-modbus", f"at {rate} baud: {modbus}")
                if probe.closed:
                    return unplugged(f"while it was used at {rate} baud")
        except (LinkError, AddressError):  # the adapter may not have this rate
            if _is_gone(address.path):
                return unplugged(f"before it was used at {rate} baud")
    return None


def _is_gone(path: str) -> bool:
    return sys.platform != "win32" and not Path(path).exists()


def _of_another_request(contents: Contents, requests: int) -> Finding:
    """Return what the frames are that came only after the last of several requests at the same rate."""
    if contents.reply is not None:
        return finding(
            "line-answers",
            f"only request {requests} was answered, none before it",
            severity=Severity.WARNING,
            advice="If this comes again, check the plugs and the supply of the controller.",
        )
    if are_other_answers(contents.frames, requests):
        return other_command(contents.frames, requests, Severity.ERROR)
    count = len(contents.frames)
    return finding("line-other-master", f"{count} frames, none of them a reply", severity=Severity.ERROR)


async def ask_modbus(probe: Probe, seconds: float) -> str:
    """Send a Modbus reading. Return the Modbus frame that comes, in hexadecimal, or nothing."""
    probe.clear()
    probe.send(MODBUS_REQUEST)
    await probe.wait(seconds, lambda data: Contents.of(data).modbus)
    return Contents.of(probe.data).modbus
