"""Listens to the exchanges of a controller with another master, such as the MT-5 meter. Never sends a byte."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from functools import partial
from math import inf
from typing import TYPE_CHECKING, NamedTuple, Self
from weakref import WeakSet

from tracer_async.client._connection import ConnectionState
from tracer_async.client._retrying import Retrying
from tracer_async.client.reading import Reading
from tracer_async.client.subscription import Subscription
from tracer_async.errors import AddressError, LinkError, TracerError
from tracer_async.protocol import CommandCode, DecoderStats, Frame, RealtimeData
from tracer_async.protocol._numbers import check_number
from tracer_async.sharing._direction import Direction
from tracer_async.sharing._inputs import Input
from tracer_async.sharing._pairing import Pair, Pairing
from tracer_async.sharing._undecided import Undecided
from tracer_async.transport._threads import call
from tracer_async.transport.address import SimAddress, parse_address

if TYPE_CHECKING:
    from types import TracebackType

    from tracer_async.capture import Recorder

__all__ = ["Listener", "ObservedExchange"]

# Maximum seconds to wait at the end until a recording is written.
_RECORDER_TIMEOUT = 5.0
# Initial and maximum seconds until a port that was lost is opened again.
_BACKOFF = (0.5, 30.0)
_MOST_WAITING = 4096


class ObservedExchange(NamedTuple):
    """A request and its reply."""

    time: float
    """When the request was received, or else the reply: seconds since 1970, UTC."""
    request: Frame | None
    """None if it was not received, for example because it was damaged."""
    reply: Frame | None
    """None if there was no reply, or if it was damaged."""
    delay: float | None
    """Seconds from the request to the reply. None if one of them is missing."""
    age: float = inf
    """Maximum seconds from the request to the reply. It includes the time for which the request may have waited unread.
    Infinite if one of them is missing."""
    damaged: bool = False
    """Whether damaged bytes came in place of the reply."""


class Listener:
    """Listens on a port: ``async with Listener(url) as listener: async for exchange in listener: ...``.

    It opens serial ports for reading only. Opening a port switches DTR and RTS on, as the operating system does that.
    They stay on when it is closed. A port that is lost is opened again, after 0.5 s, later at most every 30 s.

    :param urls: One URL if both directions share a wire. Two, in any order, if each direction has its own. The first
        reading or settings command shows which is which. Other commands before it are reported then, or after 10 s.
    :param timeout: Seconds within which a controller replies. A later reply is an exchange without a request.
    :param recorder: Records all bytes that are received. The listener closes it. On one wire for both directions,
        damaged bytes are recorded as those of the controller while a request waits, else as those of the client.
    :raises AddressError: if a URL is invalid, or is that of a simulator: nobody else can send on it.
    :raises TypeError: if *timeout* is not a number.
    :raises ValueError: if *timeout* is out of its range (``docs/ranges.md``), or there are not one or two URLs.
    """

    def __init__(self, *urls: str, timeout: float = 0.3, recorder: Recorder | None = None) -> None:
        if len(urls) not in (1, 2):
            raise ValueError(f"give one URL, or one for each direction, not {len(urls)}")
        self._addresses = [parse_address(url) for url in urls]
        if any(isinstance(address, SimAddress) for address in self._addresses):
            raise AddressError("sim: is a simulator of this process only, so there is nobody to listen to on it")
        self._timeout = check_number("timeout", timeout)
        self._pairing = Pairing(self._timeout)
        self._recorder = recorder
        self._directions: list[Direction] = []
        self._subscriptions: WeakSet[Subscription[ObservedExchange]] = WeakSet()
        self._tasks: list[asyncio.Task[None]] = []
        self._errors: list[TracerError | None] = [None] * len(urls)
        self._is_open = False
        self._timer: asyncio.TimerHandle | None = None
        self.dropped: int = 0
        """Number of exchanges that iterators have dropped: each holds 4096, and drops the oldest one for a new one."""

    async def __aenter__(self) -> Self:
        """Open the ports. Raises a `LinkError`."""
        self._loop = asyncio.get_running_loop()
        self._directions = [Direction(self) for _ in self._addresses]
        self._undecided = Undecided()
        if len(self._addresses) == 1:
            self._undecided.decide()
        inputs: list[Input] = []
        try:
            for address, direction in zip(self._addresses, self._directions, strict=True):
                inputs.append(Input(address, direction.received))
                await inputs[-1].open()
            if self._recorder is not None:
                recorded = " ".join(map(str, self._addresses))
                self._recorder.begin(recorded, self._loop.time(), timeout=self._timeout, kind="listener")
            # Not before all are open: what comes until then waits in the port.
            for each in inputs:
                each.start()
        except BaseException:
            for each in inputs:
                each.close()
            if self._recorder is not None:
                self._recorder.end()
            raise
        self._tasks = [
            asyncio.create_task(self._keep_open(index, opened), name=f"tracer_async listener {self._addresses[index]}")
            for index, opened in enumerate(inputs)
        ]
        self._is_open = True
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_open = False
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._undecided.decide()
        self._tick()
        if self._timer is not None:
            self._timer.cancel()
        for direction in self._directions:
            direction.close()
        for subscription in list(self._subscriptions):
            subscription.end()
        if self._recorder is not None:
            self._recorder.end()
            await asyncio.wait([call(self._recorder.close)], timeout=_RECORDER_TIMEOUT)

    def __aiter__(self) -> Subscription[ObservedExchange]:
        """Return an async iterator over the exchanges from now on. It ends with the listener."""
        subscription: Subscription[ObservedExchange] = Subscription(_MOST_WAITING)
        self._subscriptions.add(subscription)
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
        return tuple(direction.stats for direction in self._directions)

    @property
    def state(self) -> ConnectionState:
        """UP while all ports are open, DOWN while one is lost, CLOSED before and after."""
        if not self._is_open:
            return ConnectionState.CLOSED
        return ConnectionState.DOWN if any(self._errors) else ConnectionState.UP

    @property
    def errors(self) -> tuple[TracerError | None, ...]:
        """For each port, None while it is open, or else why it was lost or cannot be opened again."""
        return tuple(self._errors)

    async def _keep_open(self, index: int, opened: Input) -> None:
        address, direction = self._addresses[index], self._directions[index]
        retrying = Retrying(str(address), _BACKOFF, _log_failed)
        retrying.opened()
        try:
            while True:
                frames = direction.stats.frames
                cause = await opened.lost
                good_frames = direction.stats.frames > frames
                reason = str(cause or "closed by the other side")
                self._errors[index] = cause if isinstance(cause, TracerError) else LinkError(str(address), reason)
                delay = retrying.lost(cause, self._loop.time(), good_frames=good_frames)
                while True:
                    await asyncio.sleep(delay)
                    opened = Input(address, partial(self._received, index))
                    try:
                        await opened.open()
                    except TracerError as error:
                        self._errors[index] = error
                        delay = retrying.not_opened(error, self._loop.time())
                    else:
                        break
                opened.start()
                self._errors[index] = None
                retrying.opened()
        finally:
            opened.close()

    def _received(self, index: int, data: bytes, not_before: float) -> None:
        # Bytes can come in the same step of the event loop as the connection, so before `Input.open` has returned.
        self._errors[index] = None
        self._directions[index].received(data, not_before)

    # Called by the directions.

    def learned(self, known: Direction, sender: str) -> None:
        """Record who sends on *known*: with two ports, the other side sends on the other one."""
        if len(self._directions) == 2:
            for direction in self._directions:
                is_other = (direction is not known) == (sender == "controller")
                direction.sender = "client" if is_other else "controller"
            self._undecided.decide()

    def take(self, direction: Direction, frame: Frame, not_before: float) -> None:
        """Take a frame that cannot have come before *not_before*."""
        self._undecided.add(partial(self._take, direction, frame, not_before, self._loop.time()), is_frame=True)

    def damaged(self, direction: Direction, raw: bytes, size: int, at: float) -> None:
        """Take bytes that are no frame, *size* of them damaged. The last of them came at the time *at*."""
        self._undecided.add(partial(self._take_damaged, direction, raw, size, at), is_frame=False)

    def _take(self, direction: Direction, frame: Frame, not_before: float, at: float) -> None:
        self._publish(self._pairing.tick(at))
        known = self._pairing.sender(frame, direction.sender, at)
        self._record(known, frame.encode(start_up=False), at)
        self._publish(self._pairing.receive(frame, known, not_before, at, may_be_early=direction.sender is not None))

    def _take_damaged(self, direction: Direction, raw: bytes, size: int, at: float) -> None:
        self._record(direction.sender or self._pairing.turn, raw, at)
        # The bytes of a request say nothing about replies.
        if size and direction.sender != "client":
            self._publish(self._pairing.damaged(size, at))

    def _record(self, sender: str, data: bytes, at: float) -> None:
        if self._recorder is not None:
            self._recorder.record(sender, data, at, time.time() - (self._loop.time() - at))

    def _publish(self, pairs: list[Pair]) -> None:
        now, wall = self._loop.time(), time.time()
        for pair in pairs:
            delay = pair.replied_at - pair.asked_at if pair.request and pair.reply else None
            age = inf if delay is None else pair.replied_at - pair.since
            at = wall - (now - pair.asked_at)
            exchange = ObservedExchange(at, pair.request, pair.reply, delay, age, pair.damaged)
            for subscription in list(self._subscriptions):
                before = subscription.dropped
                subscription.put(exchange)
                self.dropped += subscription.dropped - before
        deadline = self._pairing.deadline()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if deadline is None else self._loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._publish(self._pairing.tick(self._loop.time()))


async def _readings(exchanges: Subscription[ObservedExchange]) -> AsyncGenerator[Reading, None]:
    async for exchange in exchanges:
        reply = exchange.reply
        if reply is not None and reply.command == CommandCode.READ_REALTIME:
            try:
                data = RealtimeData.from_bytes(reply.data)
            except ValueError:
                continue
            yield Reading(exchange.time + (exchange.delay or 0.0), data, age=exchange.age)


def _log_failed(error: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": "logging failed", "exception": error})
