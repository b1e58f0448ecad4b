"""Which outputs a changed configuration touches."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gateway.hub_outputs import RecordingOutput
from tracer_async.gateway.config import GatewayConfig
from tracer_async.gateway.energy_ledger import EnergyLedger
from tracer_async.gateway.history.query import HistoryReader
from tracer_async.gateway.hub import Hub
from tracer_async.gateway.output import Controllers, Output
from tracer_async.gateway.output_set import OutputSet


def config(**sections: object) -> GatewayConfig:
    return GatewayConfig.model_validate({"controllers": {"roof": {"url": "sim:"}}, **sections})


BOTH = config(history={}, web={})


class Made:
    """Makes outputs, and notes with which history."""

    def __init__(self) -> None:
        self.outputs: list[tuple[str, RecordingOutput, object]] = []
        hub = Hub(EnergyLedger(Path("unused"), zone=None, flush_seconds=60))
        self.set = OutputSet(hub, self.make)

    def make(
        self, section: str, _config: GatewayConfig, _controllers: Controllers, history: HistoryReader | None, /
    ) -> Output:
        output = RecordingOutput(section)
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
            config(mqtt={"url": "mqtt://h", "password": "one"}),
            config(mqtt={"url": "mqtt://h", "password": "two"}),
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


async def test_checking_starts_nothing() -> None:
    made = Made()
    made.set.check(BOTH, ["history", "web"])
    await made.set.stop()
    assert len(made.outputs) == 2
    assert not [output for _, output, _ in made.outputs if output.drained_with is not None]
