"""The checks of the line: what comes unasked, and what comes back after a request."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import NamedTuple

from tracer_async.doctor._adapter import is_pseudo_terminal
from tracer_async.doctor._contents import REQUEST, Contents, hexadecimal
from tracer_async.doctor._findings import Finding, Severity, finding, noise_note, unplugged
from tracer_async.doctor._network import speaks_tls, why_not_opened
from tracer_async.doctor._probe import Probe, open_probe
from tracer_async.doctor._rates import ask_modbus, find_rate
from tracer_async.doctor._replies import are_other_answers, other_command
from tracer_async.doctor._uart import idles_low, looks_inverted
from tracer_async.errors import LinkError
from tracer_async.protocol import Frame
from tracer_async.transport import Address, SerialAddress, TcpAddress, UnixAddress

__all__ = ["check_line"]

_ATTEMPTS = 3
_REPLY_TIME = 1.2
# Seconds without a byte after which no more replies to earlier attempts are expected.
_SETTLE = 0.5


class _Heard(NamedTuple):
    """What one connection has shown."""

    unasked: Contents
    asked: Contents
    """What came after the first request."""
    closed: str
    """When the other side closed the connection. Empty if it did not."""
    modbus: str


async def check_line(
    address: Address, seconds: float, ssl_context: ssl.SSLContext | None, report: Callable[[Finding], None]
) -> list[Frame] | None:
    """Open a connection, listen for *seconds*, and ask. Return the received frames, None if there is no answer."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    try:
        async with open_probe(address, ssl_context=ssl_context) as probe:
            if isinstance(address, TcpAddress | UnixAddress):
                report(finding("net-connected", f"in {1000 * (loop.time() - begun):.0f} ms"))
            heard = await _listen_and_ask(probe, seconds)
    except LinkError as error:
        report(await why_not_opened(address, error))
        return None
    if heard.asked.reply is not None:
        _report_answering(heard, report)
        return heard.asked.frames
    if heard.unasked.frames:
        report(_other_master(heard.unasked))
    found = await _why_no_answer(address, heard)
    report(found)
    # Another request may have been answered.
    return heard.asked.frames if found.id == "line-answers" else None


async def _listen_and_ask(probe: Probe, seconds: float) -> _Heard:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await probe.wait(seconds)
    unasked = Contents.of(probe.data)
    if probe.closed:
        return _Heard(unasked, Contents.of(b""), f"{loop.time() - begun:.1f} s after it was opened", "")
    probe.clear()
    attempts = 0
    while attempts < _ATTEMPTS and not probe.closed and Contents.of(probe.data).reply is None:
        attempts += 1
        probe.send(REQUEST)
        await probe.wait(_REPLY_TIME, lambda data: Contents.of(data).reply)
    asked, modbus = Contents.of(probe.data), ""
    closed = f"{loop.time() - begun:.1f} s after it was opened, after a request" if probe.closed else ""
    if asked.reply is not None:
        # The replies to earlier attempts must not come into the next connection.
        await probe.wait(_SETTLE * (attempts - 1))
    elif not asked.raw and not closed:
        modbus = await ask_modbus(probe, _REPLY_TIME)
    return _Heard(unasked, asked, closed, modbus)


def _report_answering(heard: _Heard, report: Callable[[Finding], None]) -> None:
    """Report what is unusual on a line on which the controller answers."""
    unasked, asked = heard.unasked, heard.asked
    if unasked.frames:
        report(_other_master(unasked))
    if unasked.telnet or asked.telnet:
        report(finding("line-telnet", _hex((unasked if unasked.telnet else asked).rest), severity=Severity.WARNING))
    if asked.text:
        report(finding("line-text", repr(asked.text[:60]), severity=Severity.WARNING))
    elif unasked.text:
        report(
            finding("line-text", f"{unasked.text[:60]!r} at the beginning: harmless", severity=Severity.NOTE, advice="")
        )
    elif unasked.rest and not unasked.telnet:
        report(noise_note(f"unasked: {_hex(unasked.rest)}"))
    elif not unasked.raw:
        report(finding("line-quiet"))
    if asked.echoes:
        report(
            finding(
                "line-echo",
                "and the reply: an adapter with one wire for both directions",
                severity=Severity.NOTE,
                advice="This does no harm.",
            )
        )
    report(finding("line-answers", f"{len(REQUEST)} bytes sent, {len(asked.raw)} bytes received"))


def _other_master(unasked: Contents) -> Finding:
    count = len(unasked.frames)
    return finding("line-other-master", f"{count} frame{'' if count == 1 else 's'} before the first request")


async def _why_no_answer(address: Address, heard: _Heard) -> Finding:
    unasked, asked = heard.unasked, heard.asked
    parts = Contents.of(unasked.raw + asked.raw)
    if heard.closed and isinstance(address, SerialAddress):
        return unplugged(heard.closed)
    if (
        isinstance(address, TcpAddress)
        and not address.tls
        and (parts.tls or heard.closed)
        and await speaks_tls(address)
    ):
        return finding("net-tls-expected", _hex(parts.raw) if parts.raw else f"it closed the connection {heard.closed}")
    if heard.closed and not parts.telnet:
        text = f", with the text {parts.text[:60]!r}" if parts.text else ""
        return finding("net-closed", heard.closed + text)
    if parts.telnet:
        return finding("line-telnet", _hex(parts.rest))
    if parts.text:
        return finding("line-text", repr(parts.text[:60]))
    if parts.modbus or heard.modbus:
        return finding("line-modbus", parts.modbus or heard.modbus)
    if asked.frames:
        if not unasked.frames and are_other_answers(asked.frames, _ATTEMPTS):
            return other_command(asked.frames, _ATTEMPTS, Severity.ERROR)
        return finding(
            "line-other-master", f"{len(asked.frames)} frames, none of them a reply", severity=Severity.ERROR
        )
    if asked.echoes and not asked.rest:
        return finding("line-echo", f"{asked.echoes} of {_ATTEMPTS} requests came back, and no reply")
    # Damaged frames at the right rate are certain to have the right rate: their sync bytes are whole.
    if isinstance(address, SerialAddress) and not parts.damaged and (found := await find_rate(address, _ATTEMPTS)):
        return found
    return _of_other_bytes(address, parts)


def _of_other_bytes(address: Address, parts: Contents) -> Finding:
    if parts.damaged:
        return finding("line-damaged", f"{parts.damaged} damaged frames in {len(parts.raw)} bytes: {_hex(parts.rest)}")
    if looks_inverted(parts.raw):
        why = "the line idles low" if idles_low(parts.raw) else "the sync bytes look like this when inverted"
        return finding("line-inverted", f"{why}: {_hex(parts.raw)}")
    has_rate = isinstance(address, SerialAddress) and not is_pseudo_terminal(address.path)
    tried = ", and at any rate from 1200 to 115200 baud" if has_rate else ""
    if parts.rest:
        return finding("line-noise", f"{len(parts.rest)} bytes{tried}: {_hex(parts.rest)}")
    return finding("line-silent", f"{_ATTEMPTS} requests in {_ATTEMPTS * _REPLY_TIME:.1f} s{tried}: 0 bytes")


def _hex(data: bytes) -> str:
    return hexadecimal(data, 12)
