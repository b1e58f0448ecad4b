"""A flag that a signal handler may set, and that threads can wait for."""

from __future__ import annotations

import time
from contextlib import suppress
from threading import TIMEOUT_MAX, Lock

__all__ = ["ClosedFlag"]


class ClosedFlag:
    """Whether a client is closed. A signal handler may set it at any moment.

    That can deadlock with a `threading.Event`: its methods acquire a lock for several operations. If a handler comes
    between them, it waits for that lock, and the thread that has the lock waits for the end of the handler.
    """

    __slots__ = ("_lock", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        # Acquired until the flag is set. After that any thread may release it, however often.
        self._lock = Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Set the flag and end all waits. Any thread may call this, and more than once."""
        self.is_set = True
        self._release()

    def wait(self, seconds: float) -> bool:
        """Return whether the flag is set, at the latest after *seconds*."""
        until = time.monotonic() + seconds
        try:
            while not self.is_set and (left := until - time.monotonic()) > 0:
                self._lock.acquire(timeout=min(left, TIMEOUT_MAX))
        finally:
            if self.is_set:
                self._release()  # for the other threads that wait
        return self.is_set

    def _release(self) -> None:
        with suppress(RuntimeError):  # it is not acquired
            self._lock.release()
