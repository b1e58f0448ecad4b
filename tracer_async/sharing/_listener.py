"""Listens to the exchanges of a controller with another master, such as the MT-5 meter. Never sends a byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Self
from weakref import WeakSet

from tracer_async.client._status import ConnectionState
from tracer_async.client.reading import Reading
from tracer_async.client.subscription import Subscription
from tracer_async.errors import AddressError, LinkError, TracerError
from tracer_async.protocol import CommandCode, DecoderStats, RealtimeData
from tracer_async.protocol._numbers import check_number
from tracer_async.sharing._listened_port import ListenedPort
from tracer_async.sharing._observer import ObservedExchange, Observer
from tracer_async.transport._threads import call
from tracer_async.transport.address import SimAddress, parse_address

if TYPE_CHECKING:
    from types import TracebackType

    from tracer_async.capture import Recorder

__all__ = ["Listener"]

# Maximum seconds to wait at the end until a recording is written.
_RECORDER_TIMEOUT = 5.0
_MOST_WAITING = 4096


class Listener:
    """Listens on a port: ``async with Listener(url) as listener: async for exchange in listener: ...``.

    It opens serial ports for reading only. Opening a port switches DTR and RTS on, as the operating system does that.
    They stay on when it is closed. A port that is lost is opened again, after 0.5 s, later at most every 30 s.

    :param urls: One URL if both directions share a wire. Two, in any order, if each direction has its own. The first
        reading or settings command shows which is which. Other commands before it are reported then, or after 10 s.
    :param timeout: Seconds within which a controller replies. A later reply is an exchange without a request.
    :param recorder: Records all bytes that are received. The listener closes it. On one wire for both directions,
        damaged bytes are recorded as those of the controller while a request waits, else as those of the client.
    :param start_offline: Whether to begin also if a port cannot be opened now, and to keep trying, as after a loss. By
        default that raises.
    :raises AddressError: if a URL is invalid, or is that of a simulator: nobody else can send on it.
    :raises TypeError: if *timeout* is not a number.
    :raises ValueError: if *timeout* is out of its range (``docs/ranges.md``), or there are not one or two URLs.
    """

    def __init__(
        self, *urls: str, timeout: float = 0.3, recorder: Recorder | None = None, start_offline: bool = False
    ) -> None:
        if len(urls) not in (1, 2):
            raise ValueError(f"give one URL, or one for each direction, not {len(urls)}")
        addresses = [parse_address(url) for url in urls]
        if any(isinstance(address, SimAddress) for address in addresses):
            raise AddressError("sim: is a simulator of this process only, so there is nobody to listen to on it")
        self._recorded = " ".join(map(str, addresses))
        self._timeout = check_number("timeout", timeout)
        self._recorder = recorder
        self._start_offline = start_offline
        self._ports = [ListenedPort(address) for address in addresses]
        self._observer: Observer | None = None
        self._subscriptions: WeakSet[Subscription[ObservedExchange]] = WeakSet()
        self._is_open = False
        self._ended = False
        self.dropped: int = 0
        """Number of exchanges that iterators have dropped: each holds 4096, and drops the oldest one for a new one."""

    async def __aenter__(self) -> Self:
        """Open the ports. Raises a `LinkError` unless *start_offline*, RuntimeError if the recorder was used before."""
        loop = asyncio.get_running_loop()
        if self._recorder is not None:
            # Before anything is opened: a connection receives at once.
            self._recorder.begin(self._recorded, loop.time(), timeout=self._timeout, kind="listener")
        self._ended = False
        self._observer = Observer(len(self._ports), self._timeout, self._publish, self._is_read, self._recorder)
        try:
            for port, direction in zip(self._ports, self._observer.directions, strict=True):
                try:
                    await port.open(direction)
                except LinkError:
                    if not self._start_offline:
                        raise
        except BaseException:
            self._close()
            raise
        # Not before all are open: what comes until then waits in the port.
        for port in self._ports:
            port.start()
        self._is_open = True
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()
        for port in self._ports:
            await port.wait_closed()
        if self._recorder is not None:
            await asyncio.wait([call(self._recorder.close)], timeout=_RECORDER_TIMEOUT)

    def _close(self) -> None:
        """Do the part of closing that needs no await, so that a cancellation cannot prevent it."""
        self._is_open = False
        self._ended = True
        for port in self._ports:
            port.close()
        if self._observer is not None:
            self._observer.close()
        for subscription in list(self._subscriptions):
            subscription.end()
        if self._recorder is not None:
            self._recorder.end()

    def __aiter__(self) -> Subscription[ObservedExchange]:
        """Return an async iterator over the exchanges from now on. It ends with the listener."""
        subscription: Subscription[ObservedExchange] = Subscription(_MOST_WAITING)
        self._subscriptions.add(subscription)
        if self._ended:
            subscription.end()
        return subscription

    def readings(self) -> AsyncGenerator[Reading, None]:
        """Return an async iterator over the readings that the other master requests from now on.

        Replies that are no valid reading are left out. `Reading.age` counts from the request. It is infinite if the
        request was not received: the reply may be one that a bridge has delayed. It is infinite too for what comes in
        the first 0.5 s of a connection: a bridge may have kept that. If a bridge delays both later, the delay is not
        included.
        """
        return _readings(aiter(self))

    @property
    def stats(self) -> tuple[DecoderStats, ...]:
        """The counters of what was received on each port."""
        return () if self._observer is None else tuple(each.stats for each in self._observer.directions)

    @property
    def state(self) -> ConnectionState:
        """UP while all ports are open, DOWN while one is lost, CLOSED before and after."""
        if not self._is_open:
            return ConnectionState.CLOSED
        return ConnectionState.DOWN if any(self.errors) else ConnectionState.UP

    @property
    def errors(self) -> tuple[TracerError | None, ...]:
        """For each port, None while it is open, or else why it was lost or cannot be opened again."""
        return tuple(port.error for port in self._ports)

    @property
    def links(self) -> tuple[int, ...]:
        """For each port, how often it was opened."""
        return tuple(port.links for port in self._ports)

    def _is_read(self) -> bool:
        return all(port.is_read() for port in self._ports)

    def _publish(self, exchange: ObservedExchange) -> None:
        for subscription in list(self._subscriptions):
            before = subscription.dropped
            subscription.put(exchange)
            self.dropped += subscription.dropped - before


async def _readings(exchanges: Subscription[ObservedExchange]) -> AsyncGenerator[Reading, None]:
    async for exchange in exchanges:
        reply = exchange.reply
        if reply is not None and reply.command == CommandCode.READ_REALTIME:
            try:
                data = RealtimeData.from_bytes(reply.data)
            except ValueError:
                continue
            yield Reading(exchange.time + (exchange.delay or 0.0), data, age=exchange.age)
