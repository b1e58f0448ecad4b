"""A switch of the load has a deadline, and its outcome is never more certain than what is known.

The test is the controller. So it sees which requests are sent, and when.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.hub_outputs import RecordingOutput
from tests.peer import READING, Peer, load, realtime
from tracer_async import LinkTimeoutError, LoadState, LoadUnknownError
from tracer_async.gateway._load_outcome import certainly_not_switched
from tracer_async.gateway._load_switch import LoadDeadlineError
from tracer_async.gateway.config import ControllerConfig
from tracer_async.gateway.energy_ledger import EnergyLedger
from tracer_async.gateway.hub import Hub

READ, SWITCH = 0xA0, 0xAA
OFF = realtime(READING._replace(load_on=False))
ON = realtime(READING._replace(load_on=True))


@asynccontextmanager
async def running(url: str, **options: Any) -> AsyncIterator[tuple[Hub, RecordingOutput]]:
    """A hub that polls one controller rarely, so that nearly all requests belong to the switch."""
    hub = Hub(EnergyLedger(Path("unused"), zone=None, flush_seconds=60))
    hub.add("roof", ControllerConfig(url=url, **{"interval": 3600, "timeout": 30, "retries": 0, **options}))
    output = RecordingOutput()
    hub.start(output)
    task = asyncio.create_task(hub.run())
    try:
        yield hub, output
    finally:
        await hub.stop(output)
        await hub.aclose()
        await task


async def answer_poll(peer: Peer, output: RecordingOutput) -> None:
    await peer.request(READ)
    peer.send(OFF)
    await output.until(lambda events: events)


async def never_sent(peer: Peer, hub: Hub) -> bool:
    """Whether the command to switch the load on is not sent. One that waits would be sent before the next command."""
    switching = asyncio.create_task(hub.set_load("roof", False, within=30))
    while (frame := await peer.request()).command == READ:
        peer.send(OFF)
    assert frame.command == SWITCH
    if frame.data == b"\x00":
        peer.send(load(0))
        await peer.request(READ)
        peer.send(OFF)
        assert await switching is LoadState.OFF
        return True
    switching.cancel()
    return False


async def test_a_command_is_not_sent_after_its_deadline(peer: Peer) -> None:
    """The line is slow: the answer to a reading comes when the time is over."""
    async with running(peer.url) as (hub, output):
        switching = asyncio.create_task(hub.set_load("roof", True, within=0.3))
        await peer.request(READ)
        with pytest.raises(LoadDeadlineError) as caught:
            await switching
        assert certainly_not_switched(caught.value)
        peer.send(OFF)
        await output.until(lambda events: events)
        assert await never_sent(peer, hub)


async def test_a_command_that_is_sent_and_not_answered_until_its_deadline_is_unknown(peer: Peer) -> None:
    async with running(peer.url) as (hub, output):
        await answer_poll(peer, output)
        switching = asyncio.create_task(hub.set_load("roof", True, within=2))
        await peer.request(READ)
        peer.send(OFF)
        await peer.request(SWITCH)
        with pytest.raises(LoadDeadlineError) as caught:
            await switching
        assert not certainly_not_switched(caught.value)


async def test_a_deadline_between_the_reading_and_the_command_leaves_the_load_certainly_as_it_is(peer: Peer) -> None:
    """For 0.25 s after the first reading of a connection no command is sent."""
    async with running(peer.url) as (hub, _):
        await peer.request(READ)  # the poll, which the reading before the switch shares
        switching = asyncio.create_task(hub.set_load("roof", True, within=0.2))
        await asyncio.sleep(0)
        peer.send(OFF)
        with pytest.raises(LoadDeadlineError) as caught:
            await switching
        assert certainly_not_switched(caught.value)
        assert await never_sent(peer, hub)


async def test_a_controller_that_does_not_answer_is_certainly_not_switched(peer: Peer) -> None:
    async with running(peer.url, timeout=0.5) as (hub, output):
        await answer_poll(peer, output)
        with pytest.raises(LoadUnknownError) as caught:
            await hub.set_load("roof", True, within=30)
        assert certainly_not_switched(caught.value)
        assert await never_sent(peer, hub)


async def test_the_deadline_counts_the_time_while_the_machine_was_suspended(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of the event loop stops meanwhile, and its timeouts with it."""
    now = 1000.0
    monkeypatch.setattr("tracer_async.gateway._load_switch.uptime", lambda: now)
    async with running(peer.url) as (hub, _):
        switching = asyncio.create_task(hub.set_load("roof", True, within=30))
        await peer.request(READ)
        now += 3600
        peer.send(OFF)
        with pytest.raises(LoadDeadlineError) as caught:
            await switching
        assert certainly_not_switched(caught.value)
        assert await never_sent(peer, hub)


async def test_the_log_says_of_a_switch_that_is_cancelled_whether_the_load_may_be_switched(
    peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(peer.url) as (hub, output):
        await answer_poll(peer, output)
        for sent, what in ((False, "the load was not switched on"), (True, "it is unknown whether the load was")):
            caplog.clear()
            switching = asyncio.create_task(hub.set_load("roof", True, within=30))
            await peer.request(READ)
            if sent:
                peer.send(OFF)
                await peer.request(SWITCH)
            switching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await switching
            lines = [text for record in caplog.records if "switched" in (text := record.getMessage())]
            assert len(lines) == 1
            assert what in lines[0]
            if not sent:
                peer.send(OFF)


@pytest.mark.slow
async def test_without_a_connection_its_error_comes_before_the_deadline_of_a_command_over_mqtt() -> None:
    async with Peer() as peer:
        url = peer.url
    async with running(url) as (hub, _):  # nobody listens there any more
        with pytest.raises(LinkTimeoutError, match="refused") as caught:
            await hub.set_load("roof", True, within=4.9)
        assert certainly_not_switched(caught.value)


async def test_the_reading_after_a_confirmed_switch_is_not_part_of_its_deadline(peer: Peer) -> None:
    async with running(peer.url) as (hub, output):
        await answer_poll(peer, output)
        switching = asyncio.create_task(hub.set_load("roof", True, within=2))
        await peer.request(READ)
        peer.send(OFF)
        await peer.request(SWITCH)
        peer.send(load(1))
        await peer.request(READ)
        await asyncio.sleep(2)
        peer.send(ON)
        assert await switching is LoadState.ON
        assert output.events[-1].reading.data is not None
        assert output.events[-1].reading.data.load_on


@pytest.mark.slow
async def test_a_confirmed_switch_is_confirmed_although_no_reading_after_it_is_answered(peer: Peer) -> None:
    async with running(peer.url) as (hub, output):
        await answer_poll(peer, output)
        switching = asyncio.create_task(hub.set_load("roof", True, within=20))
        await peer.request(READ)
        peer.send(OFF)
        await peer.request(SWITCH)
        peer.send(load(1))
        assert await switching is LoadState.ON
