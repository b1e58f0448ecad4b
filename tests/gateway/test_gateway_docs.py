"""What docs/gateway.md says is right: its configurations, commands, examples, tables and the generated reference."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import sqlite3
import tomllib
from contextlib import closing
from datetime import date
from pathlib import Path

import click
import jsonschema
import pytest
import yaml

from tests.gateway.stub_hub import StubHub, controller, data, event
from tracer_async import ResponseTimeoutError
from tracer_async.cli.app import cli
from tracer_async.gateway import metrics
from tracer_async.gateway._mqtt_messages import connection_message, state_message
from tracer_async.gateway._topics import Topics
from tracer_async.gateway.config import MqttConfig
from tracer_async.gateway.config_file import load_config
from tracer_async.gateway.events import EnergyTotals
from tracer_async.gateway.output import OutputState
from tracer_async.gateway.reference import with_reference

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "gateway.md").read_text(encoding="utf-8")
OPENAPI = json.loads((ROOT / "tracer_async" / "gateway" / "web" / "static" / "openapi.json").read_text("utf-8"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def example(name: str) -> dict[str, object]:
    (text,) = re.findall(rf"<!-- example: {name} -->\n```json\n(.*?)```", PAGE, re.DOTALL)
    found: dict[str, object] = json.loads(text)
    return found


def commands(program: str) -> list[str]:
    lines = [
        line
        for block in blocks("console")
        for line in re.sub(r" *\\\n *", " ", block).splitlines()
        if line.startswith("$ ")
    ]
    words = [re.sub(r"^\$ (sudo )?([A-Z_]+=\S+ )*", "", line).partition("  #")[0].strip() for line in lines]
    return [line for line in words if line.partition(" ")[0].rpartition("/")[2] == program]


def test_the_reference_is_the_generated_one() -> None:
    """If this fails: ``python -m tracer_async.gateway.reference docs/gateway.md``."""
    assert with_reference(PAGE) == PAGE


def test_a_page_without_the_comments_gets_no_reference() -> None:
    with pytest.raises(ValueError, match="comments"):
        with_reference("# A page\n")


@pytest.mark.parametrize("block", blocks("toml"))
def test_a_configuration_on_the_page_is_accepted(block: str, tmp_path: Path) -> None:
    for table in tomllib.loads(block).values():
        for key, value in table.items():
            if key.endswith("_file"):
                file = tmp_path / value.replace("${CREDENTIALS_DIRECTORY}/", "")
                file.write_text(f"0123456789abcdef {key}")
                file.chmod(0o600)
    path = tmp_path / "gateway.toml"
    path.write_text(block, encoding="utf-8")
    variables = {name: f"0123456789abcdef {name}" for name in re.findall(r"\$\{(\w+)\}", block)}
    config = load_config(path, environment=variables | {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert "roof" in config.controllers


def test_there_are_configurations_for_every_output() -> None:
    sections = {name for block in blocks("toml") for name in tomllib.loads(block)}
    assert sections >= {"controllers", "mqtt", "web", "influx", "history"}


@pytest.mark.parametrize("command", commands("tracer-async"))
def test_a_command_on_the_page_is_accepted(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restored_logging: None
) -> None:
    """Its arguments are parsed; nothing is run."""
    monkeypatch.chdir(tmp_path)
    parent: click.Context = cli.make_context("tracer-async", [], resilient_parsing=True)
    group: click.Command = cli
    words = shlex.split(command.partition(" > ")[0])[1:]
    while isinstance(group, click.Group):
        name, found, words = group.resolve_command(parent, words)
        assert found is not None
        group = found
        parent = click.Context(group, parent=parent, info_name=name)
    group.make_context(group.name, words, parent=parent.parent).close()


def test_the_copy_of_a_running_sqlite_history_is_complete(tmp_path: Path) -> None:
    (command,) = commands("sqlite3")
    _, source, statement = shlex.split(command)
    assert Path(source).name == "history.db"
    live, copy = tmp_path / "history.db", tmp_path / "copy.db"
    statement = statement.replace("/backup/history.db", str(copy))
    with closing(sqlite3.connect(live)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        with writer:
            writer.execute("CREATE TABLE rows (value)")
            writer.execute("INSERT INTO rows VALUES (1), (2)")
        with closing(sqlite3.connect(live)) as other:
            other.execute(statement)
    with closing(sqlite3.connect(copy)) as copied:
        assert copied.execute("SELECT value FROM rows").fetchall() == [(1,), (2,)]


def test_the_examples_have_the_fields_that_are_published() -> None:
    roof = controller()
    energy = EnergyTotals(charge=1.0, load=1.0, day=date(2026, 6, 1), charge_today=1.0, load_today=1.0)
    published = event(roof, data(), energy=energy)
    assert list(example("state")) == list(json.loads(state_message(published)))
    assert list(example("connection")) == list(json.loads(connection_message(0.0, "no answer")))
    assert example("connection")["reason"] == str(ResponseTimeoutError("tcp://192.168.1.20:8088", 0xA0, 5.0, 3))


def test_the_example_of_the_api_is_valid_by_its_own_description() -> None:
    schema = {"$ref": "#/components/schemas/Controller", "components": OPENAPI["components"]}
    jsonschema.Draft202012Validator(schema).validate(example("api"))


def test_the_addresses_on_the_page_are_those_of_the_api() -> None:
    table = PAGE.partition("| address | what it is |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`(?:POST )?(/[\w/.]+)", table))
    described = {path.replace("{name}", "roof") for path in OPENAPI["paths"]}
    assert named == described - {"/api/session"}


def test_the_topics_on_the_page_are_those_of_the_gateway() -> None:
    topics = Topics.of(MqttConfig(url="mqtt://127.0.0.1"))
    table = PAGE.partition("| topic | payload |")[2].partition("\n\n")[0]
    assert re.findall(r"(?m)^\| `(.*?)` \|", table) == [
        topics.bridge,
        topics.state("roof"),
        topics.availability("roof"),
        topics.connection("roof"),
        topics.load_set("roof"),
        topics.discovery("roof"),
    ]


def test_the_metrics_on_the_page_are_those_of_the_gateway() -> None:
    roof = controller()
    hub = StubHub(roof)
    hub.put(event(roof, data()))
    hub.states.append(OutputState("mqtt"))
    rendered = set(re.findall(r"(?m)^(tracer_\w+)\{", asyncio.run(metrics.render(hub)).decode()))
    table = PAGE.partition("| metric | meaning |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(tracer_\w+)`", table)) == rendered
    assert set(metrics.FAULTS) <= set(re.findall(r"`(\w+)`", table))


def test_the_log_lines_on_the_page_are_in_the_code() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tracer_async").rglob("*.py"))
    table = PAGE.partition("| log line, or what you see |")[2].partition("\n\n")[0]
    lines = [line for row in table.splitlines()[2:] for line in re.findall(r"`(.*?)`", row.split("|")[1])]
    assert len(lines) >= 12
    for line in lines:
        for part in re.split(r"\.\.\.|; |energy\.json|controllers\.roof|roof|url\?", line):
            assert part.strip(" :") in code, line


def test_the_scrape_configuration_is_valid(tmp_path: Path) -> None:
    (block,) = blocks("yaml")
    settings = yaml.safe_load(block)
    (scrape,) = settings["scrape_configs"]
    assert scrape["job_name"] == "tracer"
    assert settings["rule_files"] == ["/etc/prometheus/prometheus-rules.yaml"]
