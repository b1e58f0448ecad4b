"""All checks, from the outside in: port or network, line, replies."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from tracer_async.doctor._findings import Finding
from tracer_async.doctor._line import check_line
from tracer_async.doctor._network import check_name
from tracer_async.doctor._port import check_port
from tracer_async.doctor._replies import check_replies
from tracer_async.transport import SerialAddress, TcpAddress, parse_address

__all__ = ["diagnose"]

_MAX_SECONDS = 3600.0


async def diagnose(
    url: str,
    *,
    seconds: float = 2.0,
    ssl_context: ssl.SSLContext | None = None,
    report: Callable[[Finding], object] | None = None,
) -> list[Finding]:
    """Find out why the controller at *url* does not answer, or how well it does. Return the findings in their order.

    *seconds* is how long it listens before the first request, 0 to 3600. *report* is called with each finding at once.
    It only sends readings, which change nothing: the one of this protocol, and if nothing answers, one of Modbus. It
    sends nothing while another process that it can see has the port open. A failed check is a finding, not an error. A
    healthy serial line takes 2 s more than *seconds*, a silent one up to 15 s.

    Raises AddressError if *url* is not a valid address, MissingExtraError if a package is needed that is not installed,
    ValueError if *seconds* is out of range.
    """
    if not 0 <= seconds <= _MAX_SECONDS:
        raise ValueError(f"seconds must be 0 to 3600, not {seconds}")
    address = parse_address(url)
    findings: list[Finding] = []

    def add(finding: Finding) -> None:
        findings.append(finding)
        if report is not None:
            report(finding)

    if isinstance(address, SerialAddress) and not await check_port(address, add):
        return findings
    if isinstance(address, TcpAddress) and not await check_name(address, add):
        return findings
    earlier = await check_line(address, seconds, ssl_context, add)
    if earlier is not None:
        known = {finding.id for finding in findings}
        await check_replies(str(address), ssl_context, add, known=known, earlier=earlier)
    return findings
