"""Which outputs a changed configuration touches."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gateway.hub_outputs import RecordingOutput
from tests.gateway.stub_hub import controller, data, event
from tracer_async.gateway.config import GatewayConfig
from tracer_async.gateway.energy_ledger import EnergyLedger
from tracer_async.gateway.events import ControllerEvent
from tracer_async.gateway.history.query import HistoryReader
from tracer_async.gateway.hub import Hub
from tracer_async.gateway.output import Controllers, Output
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


async def test_checking_starts_nothing() -> None:
    made = Made()
    made.set.check(BOTH, ["history", "web"])
    await made.set.stop()
    assert len(made.outputs) == 2
    assert not [output for _, output, _ in made.outputs if output.drained_with is not None]
