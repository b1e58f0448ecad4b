"""The command on a pseudo-terminal of any size."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios

from tests.cli.conftest import environment

ENTERED, LEFT = b"\x1b[?1049h", b"\x1b[?1049l"
"""What switches to the alternate screen, and back."""


class Terminal:
    """The command on a pseudo-terminal, and what it has written so far."""

    def __init__(self, *arguments: str, width: int = 80, height: int = 24) -> None:
        self.screen, self.terminal = pty.openpty()
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tracer_async", *arguments],
            stdin=self.terminal,
            stdout=self.terminal,
            stderr=self.terminal,
            env=environment(),
            # In a group of its own: a signal that stops it does not stop the tests. As its parent is in the same
            # session and in another group, the group is not orphaned, and the kernel does stop it.
            process_group=0,
        )
        self.seen = b""

    def read_until(self, words: bytes) -> None:
        while words not in self.seen:
            self.seen += os.read(self.screen, 4096)

    def wait(self) -> int:
        """Wait for the end of the process and return its exit code. Read meanwhile: a full terminal would block it."""
        while self.process.poll() is None:
            if select.select([self.screen], [], [], 0.1)[0]:
                self.seen += os.read(self.screen, 4096)
        return self.process.wait()

    def read_all(self) -> bytes:
        """Wait for the end, and return everything that was written."""
        os.close(self.terminal)
        self.terminal = -1
        try:
            while data := os.read(self.screen, 4096):
                self.seen += data
        except OSError:  # how Linux says that nobody has the terminal open any more
            pass
        return self.seen

    def write(self, text: bytes) -> None:
        os.write(self.screen, text)

    def wait_until_stopped(self) -> None:
        _, status = os.waitpid(self.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert os.WSTOPSIG(status) == signal.SIGTSTP

    def edits_lines(self) -> bool:
        """Whether the terminal gives whole lines to its reader, as a shell finds and leaves it."""
        return bool(termios.tcgetattr(self.terminal)[3] & termios.ICANON)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.screen)
        if self.terminal >= 0:
            os.close(self.terminal)
