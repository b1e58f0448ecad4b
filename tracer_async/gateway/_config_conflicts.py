"""What two controllers must not have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tracer_async import AddressError
from tracer_async.transport import SerialAddress, SimAddress, parse_address

__all__ = ["conflicts", "line_of"]


def conflicts(controllers: Iterable[tuple[str, Sequence[str], str | None]]) -> Iterator[tuple[str, str]]:
    """Yield the name of each controller that has the line or the ID of an earlier one, and what is wrong.

    Each controller is given as name, the URLs that are known of its line, and ID. Two names of one serial port are
    the same line. Simulated controllers have no line.
    """
    lines: dict[str, str] = {}
    ids: dict[str, str] = {}
    for name, urls, stable_id in controllers:
        others = [lines.setdefault(line, name) for line in map(line_of, urls) if line is not None]
        other = next((other for other in others if other != name), name)
        if other != name:
            yield name, f"it has the same url as controllers.{other}; a line can have only one controller"
        other = ids.setdefault(stable_id or name, name)
        if other != name:
            yield name, f"it has the same id as controllers.{other}"


def line_of(url: str) -> str | None:
    """Return what two URLs of the same line have in common; None if there is no line, or the URL is not valid."""
    try:
        address = parse_address(url)
        if isinstance(address, SerialAddress):
            return str(Path(address.path).resolve())
    except (AddressError, OSError, ValueError, RuntimeError):
        return None
    return None if isinstance(address, SimAddress) else str(address)
