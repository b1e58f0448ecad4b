"""Which outputs a changed configuration touches."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.gateway.hub_outputs import RecordingOutput
from tests.gateway.stub_hub import controller, data, event
from tests.promise.virtual_time import virtual_time
from tracer_async.gateway.config import ControllerConfig, GatewayConfig
from tracer_async.gateway.energy_ledger import EnergyLedger
from tracer_async.gateway.events import ControllerEvent
from tracer_async.gateway.history.query import HistoryReader
from tracer_async.gateway.hub import Hub
from tracer_async.gateway.output import Controllers, EventQueue, Output
from tracer_async.gateway.output_set import OutputSet


def config(**sections: object) -> GatewayConfig:
    return GatewayConfig.model_validate({"controllers": {"roof": {"url": "sim:"}}, **sections})


BOTH = config(history={}, web={})


class Made:
    """Makes outputs, and notes with which history."""

    def __init__(self, kind: type[RecordingOutput] = RecordingOutput) -> None:
        self._kind = kind
        self.outputs: list[tuple[str, RecordingOutput, object]] = []
        hub = Hub(EnergyLedger(Path("unused"), zone=None, flush_seconds=60))
        self.set = OutputSet(hub, self.make)

    def make(
        self, section: str, _config: GatewayConfig, _controllers: Controllers, history: HistoryReader | None, /
    ) -> Output:
        output = self._kind(section)
        self.outputs.append((section, output, history))
        return output


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        (BOTH, BOTH, []),
        (BOTH, config(history={}, web={"listen": "[::1]:1"}), ["web"]),
        (BOTH, config(history={"raw_days": 1}, web={}), ["history", "web"]),
        (BOTH, config(web={}), ["history", "web"]),
        (config(), config(mqtt={"url": "mqtt://h"}, influx={"url": "http://h"}), ["mqtt", "influx"]),
        (
            config(mqtt={"url": "mqtt://h", "username": "u", "password": "one"}),
            config(mqtt={"url": "mqtt://h", "username": "u", "password": "two"}),
            ["mqtt"],
        ),
        (BOTH, config(history={}, web={}, log={"level": "error"}, time_zone="Asia/Tokyo"), []),
    ],
)
def test_only_sections_that_differ_are_changed_and_the_dashboard_with_its_history(
    before: GatewayConfig, after: GatewayConfig, changed: list[str]
) -> None:
    assert Made().set.changed(before, after) == changed


async def test_the_dashboard_reads_the_history_that_runs() -> None:
    made = Made()
    made.set.start(BOTH, ["history", "web"])
    (_, history, _), (_, _, read) = made.outputs
    assert read is history
    # A new dashboard has the same history, and a new history the new dashboard.
    await made.set.stop(["web"])
    made.set.start(BOTH, ["web"])
    assert made.outputs[2][2] is history
    await made.set.stop(["history", "web"])
    made.set.start(BOTH, ["history", "web"])
    assert made.outputs[4][2] is made.outputs[3][1]
    await made.set.stop(["history", "web"])
    made.set.start(config(web={}), ["history", "web"])
    assert made.outputs[5][2] is None
    await made.set.stop()
    assert all(output.drained_with == 0 for _, output, _ in made.outputs)


class FailingOutput(RecordingOutput):
    """Delivers nothing."""

    def take_left(self) -> list[ControllerEvent]:
        left, self.events = self.events, []
        return left


async def test_what_a_stopped_output_could_not_deliver_is_given_to_its_successor_and_to_no_other() -> None:
    made = Made(FailingOutput)
    made.set.start(BOTH, ["history", "web"])
    (_, history, _), (_, web, _) = made.outputs
    events = [event(controller(), data(), at=at) for at in (1.0, 2.0)]
    history.events += events
    web.events.append(event(controller(), data(), at=3.0))
    await made.set.stop(["history", "web"])
    made.set.start(config(history={}), ["history", "web"])
    assert made.outputs[2][1].events == events
    # The section of the other one is gone, and what it held with it.
    await made.set.stop(["history"])
    made.set.start(BOTH, ["web"])
    assert made.outputs[3][1].events == []
    await made.set.stop()


class QueueOutput(Output):
    """Delivers to a list. The history takes 2 s to end, and the others no time."""

    def __init__(self, section: str, delivered: list[ControllerEvent]) -> None:
        super().__init__(section)
        self._delivered = delivered
        self._queue = EventQueue(self.state, 1000)

    def publish(self, event: ControllerEvent) -> None:
        self._queue.put(event)

    async def run(self) -> None:
        while True:
            await self._queue.wait()
            self._delivered.extend(self._queue.take(1000))

    async def drain(self) -> None:
        if self.state.name == "history":
            await asyncio.sleep(2)

    def take_left(self) -> list[ControllerEvent]:
        return self._queue.take(1000)


@virtual_time
async def test_an_output_and_its_successor_deliver_every_event_once_and_in_order() -> None:
    delivered: dict[str, list[ControllerEvent]] = {"history": [], "web": []}
    hub = Hub(EnergyLedger(Path("unused"), zone=None, flush_seconds=60))
    outputs = OutputSet(hub, lambda section, *_: QueueOutput(section, delivered[section]))
    judge = RecordingOutput("judge")
    hub.start(judge)
    controllers = {"roof": ControllerConfig.model_validate({"url": "sim:", "interval": 0.2})}
    await hub.apply(controllers)
    outputs.start(BOTH, delivered)
    polling = asyncio.create_task(hub.run())
    await judge.until(lambda events: len(events) == 5)
    await outputs.stop(delivered)
    assert len(judge.events) >= 10  # some came while the outputs ended
    await hub.apply({**controllers, "shed": controllers["roof"]})
    outputs.start(BOTH, delivered)
    await judge.until(lambda events: len(events) == 40)
    await asyncio.sleep(0)
    # A new output begins with the latest event, which the old one may have had.
    for events in delivered.values():
        assert list(dict.fromkeys(map(id, events))) == [id(event) for event in judge.events]
    await outputs.stop()
    await hub.aclose()
    await polling


class LateOutput(QueueOutput):
    """Delivers what it holds when it ends. The dashboard takes 2 s to end, and the history no time."""

    def __init__(self, section: str, delivered: list[ControllerEvent], failures: list[Exception]) -> None:
        super().__init__(section, delivered)
        self._failures = failures

    async def drain(self) -> None:
        if self.state.name == "web":
            await asyncio.sleep(2)
        elif self._failures:
            raise self._failures.pop(0)
        self._delivered.extend(self.take_left())


@virtual_time
@pytest.mark.parametrize("failures", [0, 1, 2])
async def test_an_event_that_comes_during_a_cancelled_change_is_delivered_at_the_end_or_counted_in_the_log(
    failures: int, caplog: pytest.LogCaptureFixture
) -> None:
    delivered: dict[str, list[ControllerEvent]] = {"history": [], "web": []}
    errors: list[Exception] = [OSError("the disk is full") for _ in range(failures)]
    hub = Hub(EnergyLedger(Path("unused"), zone=None, flush_seconds=60))
    outputs = OutputSet(hub, lambda section, *_: LateOutput(section, delivered[section], errors))
    judge = RecordingOutput("judge")
    hub.start(judge)
    await hub.apply({"roof": ControllerConfig.model_validate({"url": "sim:", "interval": 0.2})})
    outputs.start(BOTH, delivered)
    polling = asyncio.create_task(hub.run())
    await judge.until(lambda events: len(events) == 5)
    change = asyncio.create_task(outputs.stop(delivered))
    await judge.until(lambda events: len(events) == 10)
    change.cancel()
    await asyncio.wait([change])
    await hub.aclose()
    await polling
    await outputs.aclose()
    assert delivered["web"] == judge.events
    lost = len(judge.events) - len(delivered["history"])
    assert delivered["history"] == judge.events[: len(judge.events) - lost]
    wanted = [f"history: {lost} readings that could not be delivered are lost"] if failures == 2 else []
    assert [record.message for record in caplog.records if "are lost" in record.message] == wanted
    assert (lost > 0) == (failures == 2)


async def test_checking_starts_nothing() -> None:
    made = Made()
    made.set.check(BOTH, ["history", "web"])
    await made.set.stop()
    assert len(made.outputs) == 2
    assert not [output for _, output, _ in made.outputs if output.drained_with is not None]
