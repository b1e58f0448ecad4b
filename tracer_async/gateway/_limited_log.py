"""A log of what others cause: it has a limited number of lines, so that they cannot fill the disk with it."""

from __future__ import annotations

import asyncio
import logging
import math

__all__ = ["LimitedLog"]

_MINUTE = 60.0


class LimitedLog:
    """Logs at most *lines* messages in a minute, and then *rest*, which says that more are left out."""

    __slots__ = ("_lines", "_logger", "_minute", "_most", "_rest")

    def __init__(self, logger: logging.Logger, lines: int, rest: str) -> None:
        self._logger = logger
        self._most = lines
        self._rest = rest
        # When the present minute began, and how many messages it has.
        self._minute = -math.inf
        self._lines = 0

    def log(self, level: int, text: str, *values: object) -> None:
        """Log a message, unless this minute has too many. Needs an event loop."""
        now = asyncio.get_running_loop().time()
        if now - self._minute >= _MINUTE:
            self._minute, self._lines = now, 0
        self._lines += 1
        if self._lines <= self._most:
            self._logger.log(level, text, *values)
        elif self._lines == self._most + 1:
            self._logger.warning("%s; of this minute no more are logged", self._rest)
