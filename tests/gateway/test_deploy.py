"""The files in deploy/: what can be checked without a container engine."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.gateway.peer_process import free_port
from tracer_async.gateway.config_file import load_config

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CONTAINERFILE = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
SECRETS = {"WEB_TOKEN": "0123456789", "SWITCH_TOKEN": "9876543210", "MQTT_PASSWORD": "secret $x 'y'"}


def mounts() -> list[tuple[str, str, str]]:
    """Each service, with each source that it mounts and the path in the container."""
    return [
        (service, *volume.split(":")[:2]) for service, settings in SERVICES.items() for volume in settings["volumes"]
    ]


def test_the_services_are_the_gateway_and_its_peers() -> None:
    assert set(SERVICES) == {"gateway", "mosquitto", "prometheus", "grafana"}


def test_every_mounted_file_and_volume_exists() -> None:
    for _, source, target in mounts():
        assert target.startswith("/")
        if source.startswith("./"):
            assert (DEPLOY / source).exists(), source
        else:
            assert source in COMPOSE["volumes"]


def test_only_the_broker_listens_for_other_machines() -> None:
    public = {
        name
        for name, settings in SERVICES.items()
        for port in settings.get("ports", [])
        if not port.startswith("127.0.0.1:")
    }
    assert public == {"mosquitto"}


def test_no_secret_has_a_default_value() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    for name in (*SECRETS, "GRAFANA_PASSWORD"):
        assert set(re.findall(rf"(?<!\$)\$\{{{name}(.*?)\}}", text)) == {":?see deploy/README.md"}


def test_the_configuration_of_the_gateway_is_accepted() -> None:
    config = load_config(DEPLOY / "compose" / "gateway" / "gateway.toml", environment=SECRETS)
    assert config.web is not None
    assert config.web.listen == "0.0.0.0:8090"
    assert config.mqtt is not None
    assert config.mqtt.host in SERVICES
    assert config.mqtt.accepts_commands
    assert config.history is not None
    assert set(SECRETS) <= set(SERVICES["gateway"]["environment"])


def test_prometheus_accepts_its_configuration(require: Callable[[str], str], tmp_path: Path) -> None:
    text = (DEPLOY / "compose" / "prometheus.yml").read_text(encoding="utf-8")
    (secret,) = SERVICES["prometheus"]["secrets"]
    assert f"/run/secrets/{secret}" in text
    (tmp_path / "token").write_text("0123456789")
    file = tmp_path / "prometheus.yml"
    file.write_text(text.replace(f"/run/secrets/{secret}", str(tmp_path / "token")))
    shutil.copy(DEPLOY / "prometheus-rules.yaml", tmp_path)
    done = subprocess.run([require("promtool"), "check", "config", file], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rules found" in done.stdout
    config = load_config(DEPLOY / "compose" / "gateway" / "gateway.toml", environment=SECRETS)
    (scrape,) = yaml.safe_load(text)["scrape_configs"]
    assert config.web is not None
    assert scrape["static_configs"] == [{"targets": [f"{config.web.hosts[0]}:{config.web.port}"]}]


def test_grafana_finds_its_data_source_and_its_dashboard() -> None:
    folder = DEPLOY / "compose" / "grafana"
    targets = {target: source for service, source, target in mounts() if service == "grafana"}
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert source["type"] == "prometheus"
    (provider,) = yaml.safe_load((folder / "dashboards" / "tracer.yaml").read_text())["providers"]
    dashboards = {target for target in targets if target.startswith(f"{provider['options']['path']}/")}
    assert [targets[target] for target in dashboards] == ["./grafana-dashboard.json"]
    assert targets["/etc/grafana/provisioning/datasources"] == "./compose/grafana/datasources"
    assert targets["/etc/grafana/provisioning/dashboards"] == "./compose/grafana/dashboards"


async def test_mosquitto_starts_with_its_command_and_asks_for_the_password(
    require: Callable[[str], str], tmp_path: Path
) -> None:
    port = free_port()
    settings = SERVICES["mosquitto"]
    shell = settings["entrypoint"]
    assert shell == ["/bin/sh", "-c"]
    (command,) = settings["command"]
    (tmp_path / "data").mkdir()
    replaced = {
        "/tmp/passwords": f"{tmp_path}/passwords",
        "/mosquitto/config/mosquitto.conf": f"{tmp_path}/mosquitto.conf",
        "/mosquitto/data/": f"{tmp_path}/data/",
        "listener 1883": f"listener {port} 127.0.0.1",
    }
    configuration = (DEPLOY / "compose" / "mosquitto.conf").read_text(encoding="utf-8")
    for old, new in replaced.items():
        command, configuration = command.replace(old, new), configuration.replace(old, new)
    if os.geteuid() == 0:  # Mosquitto drops its rights, and could not read the folder of a test
        configuration += "user root\n"
    (tmp_path / "mosquitto.conf").write_text(configuration)
    for program in ("mosquitto", "mosquitto_passwd"):
        require(program)
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    password = SECRETS["MQTT_PASSWORD"]
    process = await asyncio.create_subprocess_exec(
        *shell,
        command.replace("$$", "$"),
        env={"PATH": path, "MQTT_PASSWORD": password},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        publish = [require("mosquitto_pub"), "-p", str(port), "-t", "x", "-m", "y", "-u", "solar", "-P"]
        async with asyncio.timeout(30):
            while await exit_code(*publish, password) != 0:
                await asyncio.sleep(0.05)
            assert await exit_code(*publish, "wrong") != 0
    finally:
        process.kill()
        await process.wait()


async def exit_code(*command: str) -> int:
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return await process.wait()


# The image


def test_what_the_image_copies_exists_and_is_not_ignored() -> None:
    ignore = (DEPLOY / "Containerfile.dockerignore").read_text(encoding="utf-8").split()
    copied = [name for line in re.findall(r"(?m)^COPY (?!--)(.*) \S+$", CONTAINERFILE) for name in line.split()]
    assert set(copied) >= {"pyproject.toml", "tracer_async"}
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in ignore


def test_the_image_has_two_stages_and_no_root() -> None:
    assert len(re.findall(r"(?m)^FROM ", CONTAINERFILE)) == 2
    _, _, final = CONTAINERFILE.rpartition("\nFROM ")
    (user,) = re.findall(r"(?m)^USER (\d+):\d+$", final)
    assert int(user) > 0
    assert "VOLUME /var/lib/tracer-async" in final
    assert "STATE_DIRECTORY=/var/lib/tracer-async" in final


@pytest.mark.slow
def test_the_health_check_is_the_answer_of_the_gateway(tmp_path: Path) -> None:
    """With the gateway on another port, before it starts and while it runs."""
    (words,) = re.findall(r"(?m)^    CMD (\[.*\])$", CONTAINERFILE)
    port = free_port()
    python, option, program = json.loads(words)
    check = [sys.executable, option, program.replace(":8090/", f":{port}/")]
    assert (python, option) == ("python", "-c")
    assert subprocess.run(check, check=False, capture_output=True).returncode != 0
    path = tmp_path / "gateway.toml"
    path.write_text(f'[controllers.roof]\nurl = "sim:"\n[web]\nlisten = "127.0.0.1:{port}"\n')
    gateway = subprocess.Popen(
        [sys.executable, "-m", "tracer_async", "gateway", path], stderr=subprocess.DEVNULL, cwd=tmp_path
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/healthz")
        assert subprocess.run(check, check=False, capture_output=True).returncode == 0
    finally:
        gateway.terminate()
        assert gateway.wait(10) == 0


def wait_for(url: str) -> None:
    """Wait until something answers."""
    end = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_the_readme_describes_every_file() -> None:
    described = re.findall(r"(?m)^\| `(.*?)` \|", (DEPLOY / "README.md").read_text(encoding="utf-8"))
    for path in DEPLOY.rglob("*"):
        name = path.relative_to(DEPLOY).as_posix()
        if path.is_file() and name not in {"README.md", ".env"}:
            assert any(name == each or (each.endswith("/") and name.startswith(each)) for each in described), name
