"""The example and the reference are complete, and what they say is right."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from tracer_async.gateway import config as models
from tracer_async.gateway.config_file import load_config
from tracer_async.gateway.example import example, reference

SECTIONS: dict[str, type[BaseModel]] = {
    "": models.GatewayConfig,
    "controllers": models.ControllerConfig,
    "mqtt": models.MqttConfig,
    "web": models.WebConfig,
    "influx": models.InfluxConfig,
    "history": models.HistoryConfig,
    "energy": models.EnergyConfig,
    "log": models.LogConfig,
}

FILES = ["mqtt.password", "influx.password", "influx.token", "web.token", "switch.token", "postgres.password"]
CERTIFICATES = ["ca.pem", "gateway.pem", "gateway.key", "web.pem", "web.key"]
VARIABLES = [
    "MQTT_PASSWORD", "INFLUX_PASSWORD", "INFLUX_TOKEN", "WEB_TOKEN", "WEB_SWITCH_TOKEN", "POSTGRES_PASSWORD"
]  # fmt: skip


def keys() -> Iterator[tuple[str, str]]:
    """Each key that is no table, with its table."""
    for section, model in SECTIONS.items():
        for name in model.model_fields:
            if section or name not in SECTIONS:
                yield section, name


def parts(text: str) -> dict[str, str]:
    """The lines of each table of the example; a table that is switched off has a # in front of its name."""
    pieces = re.split(r"(?m)^#?\[(\w+)(?:\.\w+)?\]$", text)
    found = {"": pieces[0]}
    for name, lines in zip(pieces[1::2], pieces[2::2], strict=True):
        found.setdefault(name, lines)
    return found


def test_the_example_is_a_valid_configuration(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(example(), encoding="utf-8")
    config = load_config(path, environment={})
    assert set(config.controllers) == {"roof", "shed"}
    assert config.web == models.WebConfig()
    assert config.history == models.HistoryConfig()
    assert (config.energy, config.log) == (models.EnergyConfig(), models.LogConfig())
    assert (config.mqtt, config.influx) == (None, None)


@pytest.mark.parametrize(("section", "name"), list(keys()))
def test_the_example_has_every_key_with_its_description_and_default(section: str, name: str) -> None:
    field = SECTIONS[section].model_fields[name]
    match = re.search(rf"(?m)((?:^# .*\n)+)^#?{name} = (.*)$", parts(example())[section])
    assert match is not None
    comment = " ".join(line.removeprefix("# ") for line in match[1].splitlines())
    assert field.description is not None
    assert " ".join(field.description.split()) in comment
    if not field.is_required() and field.default is not None:
        shown = tomllib.loads(f"value = {match[2]}")["value"]
        assert shown == field.default or str(shown) == str(field.default) or tuple(shown) == field.default


@pytest.mark.parametrize(("section", "name"), list(keys()))
def test_every_line_of_the_example_is_right_when_it_is_switched_on(section: str, name: str, tmp_path: Path) -> None:
    """One key at a time, since some exclude each other."""
    for file in (*FILES, *CERTIFICATES):
        (tmp_path / file).write_text("0123456789")
        (tmp_path / file).chmod(0o600)
    text = re.sub(r"(?m)^#\[", "[", example()) if section in ("mqtt", "influx") else example()
    other = {"mqtt": "influx", "influx": "mqtt"}.get(section)
    if other is not None:
        text = text.replace(f"[{other}]", f"#[{other}]")
        text = re.sub(r"(?m)^#url = \"(mqtts|http):", r'url = "\1:', text)
        text = re.sub(rf"(?ms)^#\[{other}\]$.*?^# ---", "# ---", text)
    # A certificate and its key belong together, and a password needs a user name.
    names = {"cert_file": ("cert_file", "key_file"), "key_file": ("cert_file", "key_file")}.get(name, (name,))
    if name.startswith("password") and section in ("mqtt", "influx"):
        names = (name, "username")
    pieces = re.split(r"(?m)^(?=#?\[)", text)
    header = f"[{section}." if section == "controllers" else f"[{section}]"
    for number, piece in enumerate(pieces):
        if (not section and number == 0) or (section and piece.startswith(header)):
            for switched in names:
                pieces[number] = re.sub(rf"(?m)^#({switched} = )", r"\1", pieces[number])
            if (section, name) == ("controllers", "listen"):
                pieces[number] = re.sub(r"(?m)^(url = )", r"#\1", pieces[number])
            break
    path = tmp_path / "gateway.toml"
    path.write_text("".join(pieces), encoding="utf-8")
    table = tomllib.loads("".join(pieces))
    if section:
        table = table[section]["roof"] if section == "controllers" else table[section]
    assert all(switched in table for switched in names)
    load_config(path, environment=dict.fromkeys(VARIABLES, "0123456789"))


def test_the_lines_of_the_example_fit_on_a_screen() -> None:
    assert max(map(len, example().splitlines())) <= 110
    assert all(line == line.rstrip() for line in example().splitlines())


@pytest.mark.parametrize(("section", "name"), list(keys()))
def test_the_reference_has_a_row_for_every_key(section: str, name: str) -> None:
    titles = {"": "At the beginning of the file", "controllers": "`[controllers.NAME]`"}
    title = titles.get(section, f"`[{section}]`")
    (piece,) = (piece for piece in reference().split("### ") if piece.startswith(f"{title}\n"))
    rows = [line for line in piece.splitlines() if line.startswith(f"| `{name}` |")]
    (row,) = rows
    assert row.count("|") == 5
    field = SECTIONS[section].model_fields[name]
    assert " ".join((field.description or "").split()) in row
    assert ("| required |" in row) == field.is_required()
