"""What the doctor can find: each finding with its identifier, usual severity, title and advice.

``docs/doctor.md`` has a section for each identifier. An identifier never changes its meaning.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

__all__ = ["FINDING_IDS", "Finding", "Severity", "finding", "noise_note", "unplugged"]


class Severity(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"
    """Unusual, and harmless."""
    WARNING = "warning"
    """The controller can be used, with delays or failed requests."""
    ERROR = "error"
    """The controller cannot be used."""

    @property
    def rank(self) -> int:
        """0 for OK, higher for worse."""
        return list(Severity).index(self)


class Finding(NamedTuple):
    """The result of one check."""

    id: str
    """The identifier, such as ``port-missing``. It begins with ``port-``, ``net-``, ``line-`` or ``reply-``."""
    severity: Severity
    title: str
    """What was found, in a few words."""
    evidence: str
    """What was seen, with numbers and units. May be empty."""
    advice: str
    """What to do. Empty if there is nothing to do."""


class _Kind(NamedTuple):
    severity: Severity
    title: str
    advice: str = ""


_OK, _NOTE, _WARNING, _ERROR = Severity

_CLOSE_OTHER = "Close that program, or let both connect to `tracer-async share`."

_KINDS = {
    # The port of this computer.
    "port-exists": _Kind(_OK, "port exists"),
    "port-missing": _Kind(
        _ERROR, "no such port", "Plug in the adapter. `tracer-async ports` lists the serial ports of this computer."
    ),
    "port-allowed": _Kind(_OK, "user may open it"),
    "port-permission": _Kind(_ERROR, "no permission to open it"),
    "port-free": _Kind(_OK, "no other program has it open"),
    "port-held": _Kind(_ERROR, "another program has it open", f"Nothing was sent. {_CLOSE_OTHER}"),
    "port-console": _Kind(
        _WARNING,
        "it is the system console",
        "The system writes its messages to this port. Remove console= from the command line of the kernel.",
    ),
    "port-serial": _Kind(_OK, "serial port"),
    "port-adapter": _Kind(_OK, "adapter"),
    "port-not-serial": _Kind(
        _ERROR, "not a serial port", "`tracer-async ports` lists the serial ports of this computer."
    ),
    "port-failed": _Kind(
        _ERROR, "it cannot be opened", "Unplug the adapter, plug it in again, and look at the end of `sudo dmesg`."
    ),
    # The network.
    "net-name": _Kind(_OK, "host name is known"),
    "net-name-unknown": _Kind(
        _ERROR, "host name is unknown", "Check the spelling, or write the IP address of the bridge instead."
    ),
    "net-connected": _Kind(_OK, "connected"),
    "net-refused": _Kind(
        _ERROR,
        "connection refused",
        "Nothing listens there. Check the port number, and the settings of the bridge.",
    ),
    "net-no-route": _Kind(
        _ERROR, "no route to the host", "Check that this computer and the bridge are in the same network."
    ),
    "net-timeout": _Kind(
        _ERROR, "no reply to the connection attempt", "Check that the bridge is on, its address, and firewalls."
    ),
    "net-failed": _Kind(_ERROR, "it cannot be opened", "Check the address and the network."),
    "net-tls-expected": _Kind(_ERROR, "the port speaks TLS", "Write tls:// instead of tcp://."),
    "net-no-tls": _Kind(_ERROR, "the port does not speak TLS", "Write tcp:// instead of tls://."),
    "net-tls-failed": _Kind(
        _ERROR,
        "the TLS handshake failed",
        "The host in the URL must be in the certificate, and this computer must trust its issuer.",
    ),
    "net-closed": _Kind(
        _ERROR,
        "the other side closes the connection",
        "Most bridges serve one client at a time: close the other program, or wait until the bridge drops it. "
        "Or the program there does not allow this computer.",
    ),
    # The bytes on the line.
    "line-quiet": _Kind(_OK, "nothing comes unasked"),
    "line-other-master": _Kind(
        _WARNING,
        "frames come that nobody asked for",
        "Another program or an MT-5 meter asks the same controller. Disconnect it, or use `tracer-async listen`.",
    ),
    "line-telnet": _Kind(
        _ERROR,
        "the bridge speaks telnet (RFC 2217)",
        "Telnet doubles some bytes. Set the port of the bridge to raw TCP.",
    ),
    "line-text": _Kind(
        _ERROR,
        "text comes instead of frames",
        "Switch off banner, heartbeat and registration packets of the bridge, or check the port number.",
    ),
    "line-modbus": _Kind(
        _ERROR,
        "a Modbus device answers",
        "Controllers with Modbus (Tracer A, AN, BN and later) speak another protocol than the MT-5 one.",
    ),
    "line-baud-rate": _Kind(_ERROR, "wrong baud rate"),
    "line-inverted": _Kind(
        _ERROR,
        "the signal is inverted",
        "The line has TTL level. Use a TTL adapter and no RS-232 one, or set its inversion. Check GND.",
    ),
    "line-damaged": _Kind(
        _ERROR, "only damaged frames come", "Check plugs, ground and length of the cable, and parity and data bits."
    ),
    "line-noise": _Kind(
        _ERROR,
        "bytes come that belong to no frame",
        "Check the baud rate (9600, 8N1) on both sides of the bridge, the ground and the kind of the adapter.",
    ),
    "line-echo": _Kind(
        _ERROR,
        "only our own bytes come back",
        "TX and RX are connected, or the adapter echoes and no controller answers. Check the wires, "
        "and that the battery feeds the controller.",
    ),
    "line-silent": _Kind(
        _ERROR,
        "nothing comes back",
        "Swap TX and RX. Check GND, and that the battery feeds the controller: night is no reason. "
        "Never connect the 12 V pin of the plug to the adapter: it would be destroyed.",
    ),
    "line-answers": _Kind(_OK, "controller answers"),
    # The replies.
    "reply-missing": _Kind(
        _WARNING,
        "requests are not answered",
        "Check the cable. Another program may use the controller. A slow bridge needs a longer --timeout.",
    ),
    "reply-complete": _Kind(_OK, "each request is answered"),
    "reply-latency": _Kind(_OK, "latency"),
    "reply-slow": _Kind(_WARNING, "slow replies", "Set the packing delay of the bridge to a few ms. Check the Wi-Fi."),
    "reply-undamaged": _Kind(_OK, "no damaged frames"),
    "reply-damaged": _Kind(
        _WARNING, "damaged frames", "Shorten the cable, check GND, and keep it away from the inverter and PV cables."
    ),
    "reply-in-order": _Kind(_OK, "no doubled or late replies"),
    "reply-doubled": _Kind(
        _WARNING, "doubled replies", "A bridge or network repeats data. Check its settings for resending."
    ),
    "reply-late": _Kind(_WARNING, "late replies", "Set the packing delay of the bridge to a few ms. Check the Wi-Fi."),
    "reply-format": _Kind(_OK, "replies are as documented"),
    "reply-unusual": _Kind(
        _NOTE, "unusual firmware", "This does no harm. A recording of it helps the project: `tracer-async record`."
    ),
    "reply-other-command": _Kind(
        _WARNING,
        "the controller answers another command",
        "Check that it is a Tracer with an MT-5 port. Please report it with a recording: `tracer-async record`.",
    ),
    "reply-malformed": _Kind(
        _WARNING, "invalid values in good frames", "Please report it with a recording: `tracer-async record`."
    ),
    "reply-load": _Kind(_OK, "load"),
}

FINDING_IDS: tuple[str, ...] = tuple(_KINDS)
"""All identifiers, from the outside in."""


def finding(
    name: str,
    evidence: str = "",
    *,
    severity: Severity | None = None,
    title: str | None = None,
    advice: str | None = None,
) -> Finding:
    """Return the finding *name*. *severity*, *title* and *advice* replace the usual ones."""
    kind = _KINDS[name]
    advice = kind.advice if advice is None else advice
    return Finding(name, severity or kind.severity, title or kind.title, evidence, advice)


def noise_note(evidence: str) -> Finding:
    """Return the finding that bytes outside of frames come on a line on which the controller answers."""
    advice = "The client ignores them. Check the plugs and the ground."
    return finding("line-noise", evidence, severity=Severity.NOTE, advice=advice)


def unplugged(when: str) -> Finding:
    """Return the finding that a serial port was lost while it was used."""
    advice = "Plug it in again. If nobody has unplugged it, check its plugs, and look at the end of `sudo dmesg`."
    return finding("port-failed", when, title="it was unplugged", advice=advice)
