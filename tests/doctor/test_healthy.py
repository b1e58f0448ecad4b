"""No false alarm: a healthy line, over each kind of transport, has neither warnings nor errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.descriptors import open_files
from tests.doctor.lines import complaints, ser2net
from tests.links import Link
from tracer_async import TracerClient
from tracer_async.doctor import Finding, diagnose
from tracer_async.simulator import SimulatedTracer, serve_pty, serve_tcp


async def test_each_transport(link: Link) -> None:
    if isinstance(link.url, str):
        assert complaints(await diagnose(link.url, seconds=0.05)) == []


@pytest.mark.parametrize("options", [{}, {"banner": '"ser2net\\r\\n"'}], ids=["plain", "banner"])
async def test_ser2net(tmp_path: Path, require: Callable[[str], str], options: dict[str, str]) -> None:
    async with serve_pty() as device, ser2net(require("ser2net"), tmp_path, device, **options) as url:
        async with TracerClient(url, start_offline=True, backoff=(0.01, 0.2)) as first:
            await first.read()  # it listens
        assert complaints(await diagnose(url, seconds=0.3)) == []


async def test_a_line_with_the_pace_of_9600_baud() -> None:
    async with serve_pty(baud_pacing=True) as url:
        findings = await diagnose(url, seconds=0.05)
    assert complaints(findings) == []
    assert [found.evidence for found in findings if found.id == "reply-complete"] == ["20 of 20"]


@pytest.mark.parametrize("hour", [0.0, 12.0], ids=["night", "noon"])
async def test_night_is_no_fault(hour: float) -> None:
    async with serve_tcp(SimulatedTracer(start_hour=hour)) as url:
        findings = await diagnose(url, seconds=0)
    assert complaints(findings) == []
    assert ("night is no fault" in findings[-1].evidence) is (hour == 0.0)


async def test_findings_are_reported_at_once_and_in_order() -> None:
    reported: list[Finding] = []
    assert await diagnose("sim:", seconds=0, report=reported.append) == reported


@pytest.mark.parametrize("seconds", [-1, 3601, float("nan")])
async def test_seconds_out_of_range_are_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="0 to 3600"):
        await diagnose("sim:", seconds=seconds)


async def test_it_leaves_no_descriptor_open() -> None:
    async with serve_pty() as url:
        await diagnose(url, seconds=0)
        before = open_files()
        await diagnose(url, seconds=0)
        assert open_files() == before


@pytest.mark.slow
async def test_100_runs_on_a_healthy_line_give_no_alarm() -> None:
    complained: list[list[str]] = []
    async with serve_tcp(SimulatedTracer(seed=1)) as tcp, serve_pty(SimulatedTracer(seed=2)) as pty:
        for _ in range(50):
            runs = await asyncio.gather(diagnose(tcp, seconds=0.02), diagnose(pty, seconds=0.02))
            complained += [complaints(findings) for findings in runs]
    assert len(complained) == 100
    assert [each for each in complained if each] == []
