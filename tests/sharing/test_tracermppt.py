"""The original tracermppt 0.3, under Python 2.7: ten instances at once share one simulated controller."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import ROOT, environment
from tracer_async import Frame, RealtimeData
from tracer_async.simulator import SimulatedTracer, serve_pty

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("old_program.py")
INSTANCES = 10
# Seconds: resolution of a stamp, and difference between two clocks.
STEP = 0.001
TOLERANCE = 0.002


class Controller(SimulatedTracer):
    """Stamps its readings with the time, and keeps the load commands."""

    def __init__(self, epoch: float) -> None:
        super().__init__(time_scale=0.0)
        self.epoch = epoch
        self.loads: list[tuple[float, bool]] = []

    def answer(self, frame: Frame) -> bytes | None:
        if frame.command == 0xAA:
            self.loads.append((time.time() - self.epoch, frame.data == b"\x01"))
        return super().answer(frame)

    def realtime(self) -> RealtimeData:
        high, low = divmod(int((time.time() - self.epoch) / STEP), 50_000)
        return (
            super()
            .realtime()
            ._replace(pv_voltage=high / 100, load_current=low / 100, charge_current=(high * 3 + low) % 65_536 / 100)
        )


def judge(controller: Controller, load: bool | None, begun: float, ended: float, reply: dict[str, Any]) -> str | None:
    """Return what is wrong with a reply."""
    if load is not None:
        executed = any(begun - TOLERANCE <= at <= ended + TOLERANCE and on is load for at, on in controller.loads)
        return None if reply == {"load_on": load} and executed else "not switched"
    high, low = round(reply["pv_voltage"] * 100), round(reply["load_current"] * 100)
    if round(reply["charge_current"] * 100) != (high * 3 + low) % 65_536:
        return "a reading that was never made"
    made = (high * 50_000 + low) * STEP
    if not begun - TOLERANCE - STEP <= made <= ended + TOLERANCE:
        return f"a reading made at {made:.3f}"
    # Only if no command came close to it: the reply of a command tells when it was executed, not more.
    before = [on for at, on in controller.loads if at < made - TOLERANCE - STEP]
    changing = any(abs(at - made) <= TOLERANCE + STEP for at, _ in controller.loads)
    return "another load" if before and not changing and reply["load_on"] is not before[-1] else None


@pytest.fixture(scope="module")
def python_2() -> str:
    candidates = [shutil.which("python2.7"), *Path.home().glob(".pyenv/versions/2.7.*/bin/python2.7")]
    for python in candidates:
        if python and subprocess.run([python, "-c", ""], check=False, capture_output=True).returncode == 0:
            return str(python)
    pytest.skip("there is no Python 2.7")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tracermppt 0.3 and what it imports, for Python 2.7."""
    folder = tmp_path_factory.mktemp("packages")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    wheels = ["--python-version", "2.7", "--implementation", "py", "--abi", "none", "--only-binary", ":all:"]
    for wanted in (["--no-binary", ":all:", "tracermppt==0.3"], [*wheels, "pyserial==3.5", "enum34==1.1.10"]):
        try:
            subprocess.run([*pip, "--dest", folder, *wanted], check=True, capture_output=True, timeout=60)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"tracermppt 0.3 or a package that it needs cannot be downloaded: {error}")
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    (source,) = folder.glob("tracermppt*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extract("tracermppt-0.3/tracermppt.py", folder, filter="data")
    return folder


@pytest.mark.parametrize("requests", [12, pytest.param(200, marks=pytest.mark.slow)])
async def test_ten_instances_get_right_replies(requests: int, python_2: str, packages: Path, tmp_path: Path) -> None:
    epoch = time.time()
    controller = Controller(epoch)
    links = [str(tmp_path / f"link{number}") for number in range(INSTANCES // 2)]
    variables = environment(PYTHONPATH=f"{packages}:{packages}/tracermppt-0.3")
    pipe = asyncio.subprocess.PIPE
    async with serve_pty(controller, baud_pacing=True) as url:
        hub = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tracer_async", "share", url, "--tcp", "127.0.0.1:0"),
            *(word for link in links for word in ("--pty", link)),
            env=environment(),
            stdout=pipe,
        )
        try:
            assert hub.stdout is not None
            served = [(await hub.stdout.readline()).decode().split()[-1] for _ in range(1 + len(links))]
            # One half over TCP, the other half with a link each.
            places = [*[served[0].removeprefix("tcp://")] * (INSTANCES - len(links)), *links]
            programs = [
                await asyncio.create_subprocess_exec(
                    *(python_2, str(PROGRAM), place, str(requests), str(seed), str(epoch)),
                    env=variables,
                    cwd=ROOT,
                    stdout=pipe,
                )
                for seed, place in enumerate(places)
            ]
            outputs = [(await program.communicate())[0] for program in programs]
        finally:
            hub.terminate()
            await hub.wait()
    assert hub.returncode == 0
    replies = [json.loads(line) for output in outputs for line in output.splitlines()]
    assert len(replies) == INSTANCES * requests
    answered = [reply for reply in replies if isinstance(reply[3], dict)]
    assert {reply[3] for reply in replies if not isinstance(reply[3], dict)} <= {"TracerSyncTimeout"}
    wrong = [(judge(controller, *reply), reply) for reply in answered]
    assert [each for each in wrong if each[0] is not None] == []
    assert len(answered) > 0.8 * len(replies)
    assert len(controller.requests) < 0.6 * len(replies)
    assert controller.load_on is controller.loads[-1][1]
