"""The unit for systemd, judged by systemd itself."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "deploy" / "tracer-async.service"


@pytest.fixture
def systemd_analyze(require: Callable[[str], str]) -> str:
    return require("systemd-analyze")


def test_systemd_finds_nothing_wrong_with_the_unit(systemd_analyze: str, tmp_path: Path) -> None:
    """With a program that exists in place of the installed one."""
    text, number = re.subn(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text(encoding="utf-8"))
    assert number == 1
    unit = tmp_path / UNIT.name
    unit.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [systemd_analyze, "verify", "--man=no", unit], capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_unit_is_well_sandboxed(systemd_analyze: str) -> None:
    done = subprocess.run(
        [systemd_analyze, "security", "--offline=yes", "--threshold=25", UNIT],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stdout
    match = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert match is not None
    assert float(match[1]) <= 2.5


def test_the_unit_does_what_the_service_expects() -> None:
    settings = dict(re.findall(r"(?m)^(\w+)=(.*)$", UNIT.read_text(encoding="utf-8")))
    assert settings["Type"] == "notify"
    assert settings["ExecReload"].endswith("kill -HUP $MAINPID")
    assert int(settings["WatchdogSec"]) > 2 * 5
    assert int(settings["TimeoutStopSec"]) > 5
    assert settings["DynamicUser"] == "yes"
    assert settings["SupplementaryGroups"] == "dialout"
    assert settings["StateDirectory"] == "tracer-async"
