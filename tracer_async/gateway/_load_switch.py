"""A switch of the load with a deadline: after it, the command is not sent any more.

`TracerClient.set_load` may wait long for a slow answer or for a connection. Nobody wants a load that switches when the
cause is long gone, so the gateway cancels it: a cancelled command is not sent later.
"""

from __future__ import annotations

import asyncio
import logging

from tracer_async import LinkTimeoutError, LoadError, LoadState, LoadUnknownError, Reading, TracerClient, TracerError
from tracer_async.gateway._clock import uptime

__all__ = ["CONNECT_SECONDS", "LoadDeadlineError", "reading_after_switch", "switch_load"]

_log = logging.getLogger(__name__)

CONNECT_SECONDS = 4.0
"""Seconds that a request waits for a connection. Less than the deadlines, so that the reason is known before."""

# Seconds in which the reading after a switch has to be answered. It delays the next command.
_READING_SECONDS = 5.0


class LoadDeadlineError(LoadError):
    """A switch of the load was not confirmed in time. ``sent`` is whether the command may have been sent."""

    def __init__(self, name: str, seconds: float, *, sent: bool) -> None:
        unsent = "the controller did not answer soon enough to send the command"
        super().__init__(f"{name}: {'it was not confirmed' if sent else unsent} within {seconds:.2g} s")
        self.sent = sent


async def switch_load(client: TracerClient, name: str, on: bool, *, within: float) -> LoadState:
    """Switch the load of the controller *name* and return its confirmed state. Sends nothing after *within* seconds.

    Raises LoadDeadlineError if the switch is not confirmed by then, and what `TracerClient.set_load` raises. A switch
    that is cancelled is logged here, because only this function knows whether the command may have been sent.
    """
    deadline = uptime() + within
    requests: int | None = None

    def sent() -> bool:
        return requests is not None and client.stats.requests != requests

    try:
        async with asyncio.timeout(within):
            await _check_answers(client, on)
            # The event loop's clock, and so its timeout, stops while the machine is suspended.
            if uptime() >= deadline:
                raise TimeoutError
            requests = client.stats.requests
            return await client.set_load(on)
    except TimeoutError as error:
        if isinstance(error, TracerError):
            raise
        raise LoadDeadlineError(name, within, sent=sent()) from None
    except asyncio.CancelledError:
        what = "it is unknown whether the load was switched" if sent() else "the load was not switched"
        _log.warning("%s: %s %s: the gateway stopped waiting for it", name, what, "on" if on else "off")
        raise


async def _check_answers(client: TracerClient, on: bool) -> None:
    """Take a reading, so that only a controller that answers gets the command. All errors say that it was not sent."""
    try:
        await client.read_realtime()
    except LinkTimeoutError:
        raise
    except TracerError as error:
        raise LoadUnknownError(client.url, on, sent=False, cause=error) from error


async def reading_after_switch(client: TracerClient) -> Reading | None:
    """Return a reading that shows the switched load. None if there is no answer: the next poll reports that."""
    try:
        async with asyncio.timeout(_READING_SECONDS):
            return await client.read()
    except (TracerError, TimeoutError):
        return None
