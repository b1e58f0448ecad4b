"""The metrics, read by Prometheus's own tools and by Prometheus itself."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway.peer_process import free_port, running
from tests.gateway.stub_hub import StubHub, controller, data, event
from tracer_async.gateway import metrics
from tracer_async.gateway._clock import uptime
from tracer_async.gateway.config import WebConfig
from tracer_async.gateway.events import EnergyTotals
from tracer_async.gateway.output import OutputState
from tracer_async.gateway.web import WebOutput
from tracer_async.protocol import SessionStats

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus-rules.yaml"
DASHBOARD = ROOT / "deploy" / "grafana-dashboard.json"


def samples(hub: StubHub) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample by its name and the values of its labels, as Prometheus's own parser reads them."""
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(asyncio.run(metrics.render(hub)).decode())
        for sample in family.samples
    }


def test_measurements_are_in_base_units() -> None:
    roof = controller("roof")
    hub = StubHub(roof)
    stats = SessionStats(*range(1, len(SessionStats._fields) + 1))
    measured = data(battery_voltage=12.34, charge_current=5.6, battery_temperature=-7, load_on=True, overload=True)
    hub.put(event(roof, measured, energy=EnergyTotals(charge=2.0, load=0.5, unknown=60.0), stats=stats))
    found = samples(hub)
    assert found["tracer_battery_volts", ("roof",)] == 12.34
    assert found["tracer_charge_amperes", ("roof",)] == 5.6
    assert found["tracer_battery_celsius", ("roof",)] == -7
    assert found["tracer_load_on", ("roof",)] == 1
    assert found["tracer_fault", ("roof", "overload")] == 1
    assert found["tracer_fault", ("roof", "over_discharge")] == 0
    assert found["tracer_charge_energy_joules_total", ("roof",)] == 7200
    assert found["tracer_load_energy_joules_total", ("roof",)] == 1800
    assert found["tracer_energy_unknown_seconds_total", ("roof",)] == 60
    assert found["tracer_requests_total", ("roof",)] == stats.requests
    assert found["tracer_timeouts_total", ("roof",)] == stats.timeouts
    assert found["tracer_up", ("roof",)] == 1
    assert 0 <= found["tracer_reading_age_seconds", ("roof",)] < 5


@pytest.mark.parametrize("cause", ["error", "old"])
def test_a_controller_that_is_down_has_only_up_and_counters(cause: str) -> None:
    roof = controller("roof")
    hub = StubHub(roof)
    if cause == "error":
        hub.put(event(roof, None))
    else:
        hub.put(event(roof, data(), monotonic=uptime() - 16))
    names = {name for name, labels in samples(hub) if labels and labels[0] == "roof"}
    assert samples(hub)["tracer_up", ("roof",)] == 0
    assert {name for name in names if not name.endswith("_total")} == {"tracer_up"}


def test_a_controller_without_an_event_is_down_and_has_no_counters() -> None:
    hub = StubHub(controller("roof"))
    assert {name for name, labels in samples(hub) if labels} == {"tracer_up"}


def test_outputs_are_shown() -> None:
    hub = StubHub(controller("roof"))
    state = OutputState("mqtt")
    state.dropped = 3
    hub.states.append(state)
    found = samples(hub)
    assert found["tracer_output_up", ("mqtt",)] == 0
    assert found["tracer_output_dropped_total", ("mqtt",)] == 3


def test_promtool_finds_nothing_wrong_with_the_metrics(require: Callable[[str], str]) -> None:
    roof, shed = controller("roof"), controller("shed")
    hub = StubHub(roof, shed)
    hub.put(event(roof, data()))
    hub.put(event(shed, None))
    hub.states.append(OutputState("mqtt"))
    text = asyncio.run(metrics.render(hub))
    done = subprocess.run([require("promtool"), "check", "metrics"], input=text, check=False, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_promtool_finds_nothing_wrong_with_the_rules(require: Callable[[str], str]) -> None:
    done = subprocess.run([require("promtool"), "check", "rules", RULES], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


RULES_TEST = """\
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'tracer_up{{controller="roof"}}', values: '1 1 0x20'}}
      - {{series: 'tracer_up{{controller="shed"}}', values: '1x22'}}
      - {{series: 'tracer_battery_volts{{controller="shed"}}', values: '12.6x3 11.2x20'}}
      - {{series: 'tracer_over_discharge_volts{{controller="shed"}}', values: '11x23'}}
      - {{series: 'tracer_fault{{controller="shed",fault="overload"}}', values: '0x10 1x12'}}
      - {{series: 'tracer_fault{{controller="shed",fault="over_discharge"}}', values: '0x22'}}
    alert_rule_test:
      - {{eval_time: 5m, alertname: TracerNoData, exp_alerts: []}}
      - eval_time: 10m
        alertname: TracerNoData
        exp_alerts:
          - exp_labels: {{severity: warning, controller: roof}}
            exp_annotations:
              summary: "roof does not answer"
              description: "No reading of roof for 5 minutes. The gateway's log has the reason."
      - {{eval_time: 10m, alertname: TracerBatteryLow, exp_alerts: []}}
      - eval_time: 20m
        alertname: TracerBatteryLow
        exp_alerts:
          - exp_labels: {{severity: warning, controller: shed}}
            exp_annotations:
              summary: "The battery of shed is low"
              description: "11.20 V for 10 minutes. The controller soon switches the load off."
      - {{eval_time: 9m, alertname: TracerFault, exp_alerts: []}}
      - eval_time: 15m
        alertname: TracerFault
        exp_alerts:
          - exp_labels: {{severity: critical, controller: shed, fault: overload}}
            exp_annotations:
              summary: "shed reports a fault: overload"
              description: "The fault overload lasts for 1 minute."
"""


def test_the_rules_fire_when_they_should_and_not_before(require: Callable[[str], str], tmp_path: Path) -> None:
    file = tmp_path / "test.yaml"
    file.write_text(RULES_TEST.format(rules=json.dumps(str(RULES))))
    done = subprocess.run([require("promtool"), "test", "rules", file], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dashboard_and_rules_use_only_metrics_that_exist() -> None:
    roof = controller("roof")
    hub = StubHub(roof)
    hub.put(event(roof, data()))
    hub.states.append(OutputState("mqtt"))
    existing = {name for name, _ in samples(hub)} | {"up"}
    texts = DASHBOARD.read_text() + RULES.read_text()
    used = {
        word
        for word in texts.replace("{", " ").replace("(", " ").replace('"', " ").split()
        if word.startswith("tracer_")
    }
    assert used
    assert used - {"tracer_up,"} <= existing


PROMETHEUS = """\
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: tracer
    authorization: {{credentials: {token}}}
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


@pytest.mark.slow
async def test_prometheus_scrapes_with_the_reading_token(require: Callable[[str], str], tmp_path: Path) -> None:
    token = "a token for reading"
    roof, shed = controller("roof", title='"</script>\n'), controller("shed")
    hub = StubHub(roof, shed)
    hub.put(event(roof, data(battery_voltage=12.34)))
    hub.put(event(shed, None))
    web = WebOutput(
        WebConfig(listen="127.0.0.1:0", token=token.replace(" ", "-")),  # type: ignore[arg-type]
        hub,
        history=None,
        zone=None,
    )
    task = asyncio.create_task(web.run())
    await web.listening.wait()
    assert web.url is not None
    target = int(web.url.rsplit(":", 1)[1].strip("/"))
    port = free_port()
    config = tmp_path / "prometheus.yml"
    config.write_text(PROMETHEUS.format(token=token.replace(" ", "-"), port=target))
    arguments = [
        f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    async with running(require("prometheus"), *arguments, log=tmp_path / "log"), aiohttp.ClientSession() as session:

        async def query(expression: str) -> list[dict[str, object]]:
            url = f"http://127.0.0.1:{port}/api/v1/query"
            try:
                async with session.get(url, params={"query": expression}) as response:
                    if response.status != 200:
                        return []
                    return (await response.json())["data"]["result"]  # type: ignore[no-any-return]
            except aiohttp.ClientError:
                return []

        async with asyncio.timeout(60):
            while not (found := await query('tracer_battery_volts{controller="roof"}')):
                await asyncio.sleep(0.2)
        assert found[0]["value"][1] == "12.34"  # type: ignore[index]
        assert [each["value"][1] for each in await query('tracer_up{controller="shed"}')] == ["0"]  # type: ignore[index]
        assert await query('tracer_battery_volts{controller="shed"}') == []
    task.cancel()
    await asyncio.wait([task])
