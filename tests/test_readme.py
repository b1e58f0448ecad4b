"""The README's code runs, and what it names is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import tracer_async
from tracer_async import RealtimeData, TracerClient, errors

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS)
def test_python_code_runs(code: str) -> None:
    """As it stands, but that an endless poll ends behind its first reading."""
    endless = "            print(reading.data or reading.error)\n"
    code = code.replace(endless, endless + "            break\n")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_first_example_is_short() -> None:
    assert len(BLOCKS[0].strip().splitlines()) <= 14
    assert "sim:" in BLOCKS[0]


def test_every_field_and_every_error_is_described() -> None:
    for name in (*RealtimeData._fields, "charge_power", "load_power", *errors.__all__):
        assert f"`{name}`" in README, name


def test_every_call_that_is_described_is_there() -> None:
    calls = set(re.findall(r"`[^`\n]*\btracer\.(\w+)", README)) - {"sock"}
    assert calls >= {"read_realtime", "set_load", "write_settings", "execute", "poll", "frames", "stats"}
    assert calls >= {"state", "state_changes", "open", "aclose"}
    old_program = {"set_load_on"}
    assert all(hasattr(TracerClient, name) for name in calls - old_program)


def test_every_url_that_is_described_is_one() -> None:
    from tracer_async.transport import parse_address

    table = README.partition("| URL | what it means |")[2].partition("\n\n")[0]
    urls = [url for url in re.findall(r"`([^`]+)`", table) if not url.startswith("ssl_context")]
    assert len(urls) >= 9
    for url in urls:
        parse_address(url)


def test_names_on_the_right_of_the_table_of_old_names_are_there() -> None:
    table = README.partition("| tracermppt 0.3 |")[2].partition("\n\n")[0]
    new = "\n".join(row.split("|")[2] for row in table.splitlines() if row.startswith("|"))
    fields, classes = re.findall(r"`data\.(\w+)`", new), re.findall(r"`(\w+Error)`", new)
    assert len(fields) >= 5
    assert len(classes) >= 3
    assert set(fields) <= set(RealtimeData._fields)
    assert all(hasattr(tracer_async, name) for name in classes)


def test_files_that_are_named_are_there() -> None:
    root = Path(__file__).parents[1]
    for name in re.findall(r"\]\(([\w/.]+)\)|`((?:examples|docs)/[\w./]*)`", README):
        assert (root / "".join(name)).exists(), name
