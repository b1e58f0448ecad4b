"""A controller of the hub: its configuration, its line, and its last event."""

from __future__ import annotations

import dataclasses
import logging
from math import inf

from tracer_async import LinkError, Reading, TracerClient
from tracer_async.gateway._limited_log import LimitedLog
from tracer_async.gateway._load_switch import CONNECT_SECONDS
from tracer_async.gateway.config import ControllerConfig
from tracer_async.gateway.events import Controller, ControllerEvent
from tracer_async.gateway.listening import ListenedLine, silence_limit
from tracer_async.protocol import LATE_REPLY_WINDOW

__all__ = ["FENCE_SECONDS", "Member"]

_log = logging.getLogger(__name__)

FENCE_SECONDS = 1.0
"""Seconds for which nothing is sent to a controller after a request that it did not answer."""

# Lines of the log about the readings of a controller, in a minute.
_MAX_LINES = 20


class Member:
    """One controller, and what is known about it."""

    __slots__ = ("_log", "client", "config", "controller", "latest")

    def __init__(self, name: str, config: ControllerConfig, client: TracerClient | ListenedLine) -> None:
        self.controller = _controller(name, config)
        self.config = config
        self.client = client
        self.latest: ControllerEvent | None = None
        # A controller that goes offline and online with each reading must not fill the disk.
        self._log = LimitedLog(_log, _MAX_LINES, f"{name} changes too often")

    # Another configuration

    def keeps_line(self, config: ControllerConfig | None) -> bool:
        """Return whether the controller can keep its connection and its schedule with *config*; None removes it."""
        if config is None:
            return False
        nothing_else = {"title": None, "id": None}
        return config.model_copy(update=nothing_else) == self.config.model_copy(update=nothing_else)

    def keeps_id(self, config: ControllerConfig | None) -> bool:
        """Return whether it is the same controller to the outputs with *config*; None removes it."""
        return config is not None and _controller(self.controller.name, config).id == self.controller.id

    def rename(self, config: ControllerConfig) -> None:
        """Take another title or ID, on the same line."""
        # The totals of another ID are not those in the event.
        latest = self.latest if self.keeps_id(config) else None
        self.config, self.controller = config, _controller(self.controller.name, config)
        self.latest = None if latest is None else dataclasses.replace(latest, controller=self.controller)

    # Readings

    def accepts(self, reading: Reading) -> bool:
        """Return whether *reading* is another one than the last, and a present one."""
        before = self.latest
        if before is not None and reading.data is not None and before.reading.data is reading.data:
            return False  # one answer for a poll and for the reading after a switch, which shared an exchange
        # After a lost answer a client states ages of up to `LATE_REPLY_WINDOW` and the timeout. An answer is older than
        # that if it has waited here while this process did not run.
        oldest = max(LATE_REPLY_WINDOW + 2 * self.config.timeout, 3 * self.config.interval)
        if oldest < reading.age < inf:
            text = "%s: an answer of %.0f s ago is dropped"
            self._log.log(logging.INFO, text, self.controller.name, reading.age)
            return False
        return True

    def since(self, reading: Reading) -> float:
        """Return since when the controller is online or offline, as *reading* says. Log it if that is new."""
        before = self.latest
        is_new = before is None or before.online != reading.ok
        if reading.ok and is_new:
            # At the level of the failure: otherwise a log that has the failure would lack its end.
            self._log.log(logging.INFO if before is None else logging.WARNING, "%s is online", self.controller.name)
        elif not reading.ok and (before is None or _is_connected(before.reading) != _is_connected(reading)):
            # Again if the reason is another one: the client logs that the connection is back, which is not the end.
            self._log.log(logging.WARNING, "%s is offline: %s", self.controller.name, reading.error)
        return reading.time if before is None or is_new else before.since


def _is_connected(reading: Reading) -> bool | None:
    """Return whether there was a connection to a controller that has not answered; None if it has answered."""
    return None if reading.ok else not isinstance(reading.error, LinkError)


def _controller(name: str, config: ControllerConfig) -> Controller:
    listens = config.listen is not None
    return Controller(
        name,
        config.title or name,
        config.id or name,
        config.interval,
        switchable=not listens,
        event_gap=silence_limit(config.interval) if listens else _polled_gap(config),
        reading_gap=config.interval if listens else config.interval + config.timeout,
    )


def _polled_gap(config: ControllerConfig) -> float:
    """Return the maximum seconds from one reading or error to the next.

    A request is posted up to an interval after the last event. Each time that it is sent, it can wait for a connection,
    then for the end of the fence of an earlier request, then for its answer.
    """
    return config.interval + (config.retries + 1) * (CONNECT_SECONDS + FENCE_SECONDS + config.timeout)
