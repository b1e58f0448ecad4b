"""Programs that open a pseudo-terminal as their serial port, by the name of a symbolic link.

Each program gets a pseudo-terminal of its own: as soon as one begins to use the one behind the link, the link leads to
a new one. So a reply is only ever written to a pseudo-terminal that no later program opens, and no program reads what
an earlier one has left unread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from contextlib import suppress

from tracer_async.sharing._addresses import PtyPlace
from tracer_async.sharing._program import Program
from tracer_async.sharing._programs import Programs
from tracer_async.sharing._served_link import ServedLink

if sys.platform != "win32":
    import tty

__all__ = ["TerminalServer"]

_log = logging.getLogger("tracer_async.sharing")

_READ_SIZE = 1024


class TerminalServer:
    """A symbolic link that opens like a serial port."""

    def __init__(self, programs: Programs, place: PtyPlace) -> None:
        self.programs: Programs = programs
        self._place = place
        self._link = ServedLink(place.link)
        self._terminal: _Terminal | None = None

    def listen(self) -> str:
        """Create the link. Return its URL.

        Raises FileExistsError if another program serves there or something else has this name, OSError if the link
        cannot be created, NotImplementedError on Windows.
        """
        if sys.platform == "win32":
            raise NotImplementedError("Windows has no pseudo-terminals: use TCP")
        self._link.take()
        self.renew()
        return str(self._place)

    def renew(self) -> None:
        """Let the link lead to a new terminal. Raises OSError."""
        terminal = _Terminal(self)
        try:
            self._link.lead_to(terminal.path)
        except OSError:
            terminal.close()
            raise
        self._terminal = terminal

    def close(self) -> None:
        """Remove the link. Programs that use a terminal are closed by `Programs.close`."""
        self._link.remove()
        if self._terminal is not None:
            self._terminal.close()
            self._terminal = None


class _Terminal:
    """A pseudo-terminal. It waits behind the link until a program uses it, and ends when the program closes it."""

    def __init__(self, server: TerminalServer) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = server
        self._master, slave = os.openpty()
        tty.setraw(slave)
        os.set_blocking(self._master, False)
        self.path = os.ttyname(slave)
        # Held open until a program has sent something: without any user, reading fails.
        self._slave = slave
        self._program: Program | None = None
        self._loop.add_reader(self._master, self._read)

    def close(self) -> None:
        """Close both sides."""
        if self._master >= 0:
            self._loop.remove_reader(self._master)
            os.close(self._master)
            self._master = -1
            self._release()

    def _release(self) -> None:
        if self._slave >= 0:
            os.close(self._slave)
            self._slave = -1

    def _read(self) -> None:
        data = b""
        try:
            # A terminal has two buffers, and one read takes bytes only from the first. It is empty when a read fails.
            while len(data) < _READ_SIZE and (more := os.read(self._master, _READ_SIZE - len(data))):
                data += more
        except BlockingIOError:
            if not data:
                return
        except OSError:
            pass  # EIO: the program has closed it. What it sent before is served first. Then reading fails again.
        if not data:
            if self._program is not None:
                self._program.left()
            self.close()
            return
        if self._program is None and not self._begin():
            return
        program = self._program
        assert program is not None  # noqa: S101  # `_begin` has set it
        wait = program.received(data, is_all=len(data) < _READ_SIZE)
        if wait > 0 and self._master >= 0:
            self._loop.remove_reader(self._master)
            self._loop.call_later(wait, self._resume)

    def _resume(self) -> None:
        if self._master >= 0:
            self._loop.add_reader(self._master, self._read)

    def _begin(self) -> bool:
        """Serve the program that has sent the first bytes. Return False if that is not possible: they are ignored."""
        # A serial port stays open: not all programs could open it again.
        program = Program(self._server.programs, f"client {self.path}", self._send, self.close, may_be_idle=True)
        try:
            self._server.renew()
        except OSError as error:
            _log.warning("%s: no new pseudo-terminal, so its program is not answered: %s", self.path, error)
            return False
        # From now on only the program holds it open, so reading fails when it closes it.
        self._release()
        if not self._server.programs.add(program):
            self.close()
            return False
        self._program = program
        return True

    def _send(self, data: bytes) -> None:
        if self._master >= 0:
            # A program that does not read loses replies, as with a serial port.
            with suppress(OSError):
                os.write(self._master, data)
