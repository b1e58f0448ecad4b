"""A live view on a terminal: drawing, the key q, and Ctrl-Z."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol, TextIO

import anyio
from anyio.abc import TaskStatus
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live

if sys.platform != "win32":
    import termios
    import tty

__all__ = ["Drawable", "shown"]

# Seconds between looks at whether the process is in the foreground: no signal tells it.
_FOREGROUND_CHECK = 0.5


class Drawable(Protocol):
    """A view, as rich draws it."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it."""

    def end(self) -> None:
        """Note that what is shown now does not change any more."""


@asynccontextmanager
async def shown(view: Drawable, follow: Callable[[], None]) -> AsyncIterator[Callable[[], None]]:
    """Keep *view* on the terminal, and leave the last one in the scrolling text; yield what draws it at once.

    *follow* is called each second. The key q ends the body. Ctrl-Z restores the terminal until the process continues.
    """
    screen = _Screen(view)

    async def tick() -> None:
        while True:
            await anyio.sleep(1)
            follow()
            screen.refresh()

    try:
        async with anyio.create_task_group() as tasks:
            if sys.platform != "win32":
                await tasks.start(_obey_job_control, screen)
                tasks.start_soon(_wait_for_q, tasks.cancel_scope.cancel)
            screen.enter()
            tasks.start_soon(tick)
            yield screen.refresh
            tasks.cancel_scope.cancel()
    finally:
        screen.leave()
        view.end()
        screen.print_last()


class _Screen:
    """The terminal's alternate screen, and its keyboard without line editing."""

    def __init__(self, view: Drawable) -> None:
        self._view = view
        self._console = Console()
        self._live = Live(view, console=self._console, screen=True, auto_refresh=False)
        self._modes: list[Any] | None = None

    def enter(self) -> None:
        """Switch to the alternate screen, and draw."""
        if sys.platform != "win32" and self._modes is None and _has_keyboard():
            self._modes = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin, termios.TCSANOW)  # keys come one by one; Ctrl-C and Ctrl-Z are still signals
        self._live.start(refresh=True)

    def leave(self) -> None:
        """Restore the terminal."""
        self._live.stop()
        if sys.platform != "win32" and self._modes is not None:
            termios.tcsetattr(sys.stdin, termios.TCSANOW, self._modes)
            self._modes = None

    def refresh(self) -> None:
        """Draw the view as it is now."""
        if self._live.is_started:
            self._live.refresh()

    def print_last(self) -> None:
        """Print the view into the scrolling text, with a row left for the prompt."""
        self._console.print(self._view, height=self._console.height - 2)


if sys.platform != "win32":

    def _is_in_foreground(file: TextIO) -> bool:
        """Return whether this process may use the terminal *file*. In the background it would be stopped."""
        try:
            return os.tcgetpgrp(file.fileno()) == os.getpgrp()
        except OSError:  # not the terminal that controls this process: nothing stops it there
            return True

    def _has_keyboard() -> bool:
        return sys.stdin is not None and sys.stdin.isatty() and _is_in_foreground(sys.stdin)

    async def _wait_for_q(end: Callable[[], None]) -> None:
        while sys.stdin is not None and sys.stdin.isatty():
            if not _has_keyboard():
                await anyio.sleep(_FOREGROUND_CHECK)
                continue
            await anyio.wait_readable(sys.stdin)
            if not _has_keyboard():
                continue
            keys = os.read(sys.stdin.fileno(), 64)
            if b"q" in keys.lower():
                end()
            if not keys:  # the terminal is gone
                return

    async def _obey_job_control(screen: _Screen, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Leave the alternate screen before Ctrl-Z stops the process, and enter it again in the foreground."""
        with anyio.open_signal_receiver(signal.SIGTSTP) as signals:
            task_status.started()
            async for _ in signals:
                screen.leave()
                receiver = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
                signal.raise_signal(signal.SIGTSTP)
                # The process was stopped in the line before, and continues here.
                signal.signal(signal.SIGTSTP, receiver)
                while not _is_in_foreground(sys.stdout):  # noqa: ASYNC110  # no signal tells it
                    await anyio.sleep(_FOREGROUND_CHECK)
                screen.enter()
