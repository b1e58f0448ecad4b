"""``tracer-async ports``: the serial ports of this machine."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import NamedTuple, Protocol

import click

from tracer_async.cli.formats import Format
from tracer_async.cli.options import format_option, verbose_option
from tracer_async.errors import MissingExtraError

__all__ = ["ports"]


class _Port(NamedTuple):
    port: str
    """What to give as URL."""
    description: str
    manufacturer: str
    serial_number: str
    usb_id: str
    """Vendor and product in hexadecimal; empty for a port that is not on USB."""


@click.command(short_help="List the serial ports of this machine.")
@format_option(Format.TEXT, Format.JSON)
@verbose_option
def ports(output: Format | None) -> None:
    """List the serial ports of this machine, with what is known about their adapters.

    A port in the list is not necessarily free, and not necessarily a controller: try `tracer-async read PORT`.
    """
    found = sorted(_ports())
    if output is Format.JSON:
        for port in found:
            click.echo(json.dumps(port._asdict()))
        return
    if not found:
        click.echo("No serial port was found. Is the adapter plugged in?", err=True)
        return
    width = max(len(port.port) for port in found)
    for port in found:
        details = [port.description, port.manufacturer, port.usb_id, port.serial_number]
        words = dict.fromkeys(detail for detail in details if detail)
        click.echo(f"{port.port:{width}}  {', '.join(words) or '-'}")


def _ports() -> list[_Port]:
    if find_spec("serial"):
        from serial.tools.list_ports import comports

        # pyserial writes n/a where nothing is known.
        return [_port(found, found.product or found.description.replace("n/a", "")) for found in comports()]
    if find_spec("serialx"):
        from serialx import list_serial_ports

        return [_port(found, found.product) for found in list_serial_ports()]
    raise MissingExtraError("the list of serial ports", "serial")


class _Found(Protocol):
    """What both packages tell of a port."""

    device: str
    vid: int | None
    pid: int | None
    manufacturer: str | None
    serial_number: str | None


def _port(found: _Found, description: str | None) -> _Port:
    usb_id = "" if found.vid is None or found.pid is None else f"{found.vid:04x}:{found.pid:04x}"
    return _Port(found.device, description or "", found.manufacturer or "", found.serial_number or "", usb_id)
