"""The checks of the replies: 20 readings, with their latency, damage and oddities."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median, pstdev

from tracer_async.client.client import TracerClient
from tracer_async.client.reading import Reading
from tracer_async.doctor._contents import is_reply
from tracer_async.doctor._findings import Finding, Severity, finding
from tracer_async.errors import LinkError, MalformedReplyError, ResponseTimeoutError, TracerError
from tracer_async.protocol import DUPLICATE_WINDOW, Frame, RealtimeData, SessionStats

__all__ = ["check_replies"]

_REQUESTS = 20
_SLOW = 0.7
"""Seconds of the median latency above which a line is slow.

A reply takes 0.06 s on the wire. `tracer-async share` takes up to 0.5 s, because it waits 0.25 s between readings.
"""

_DAYLIGHT = 5.0
"""Volts at the panel that only light makes: a dark one reads 0.2 to 0.4 V."""


@dataclass
class _Sample:
    """What the requests have shown."""

    readings: list[Reading] = field(default_factory=list)
    timeouts: int = 0
    malformed: list[MalformedReplyError] = field(default_factory=list)
    lost: int = 0
    frames: list[Frame] = field(default_factory=list)
    stats: SessionStats | None = None


async def check_replies(
    url: str, ssl_context: ssl.SSLContext | None, report: Callable[[Finding], None], *, other_master: bool
) -> None:
    """Take 20 readings and report on them. With *other_master*, unsolicited frames are known already."""
    sample = await _take(url, ssl_context)
    _report_counts(sample, report, other_master=other_master)
    _report_format(sample, report)
    if sample.readings:
        report(_load_hint([reading.data for reading in sample.readings if reading.data is not None][-1]))


async def _take(url: str, ssl_context: ssl.SSLContext | None) -> _Sample:
    sample = _Sample()
    client = TracerClient(url, retries=0, start_offline=True, backoff=(0.2, 1.0), ssl_context=ssl_context)
    async with client as tracer:
        frames = tracer.frames()
        for _ in range(_REQUESTS):
            try:
                sample.readings.append(await tracer.read())
            except ResponseTimeoutError:
                sample.timeouts += 1
            except MalformedReplyError as error:
                sample.malformed.append(error)
            except LinkError:
                sample.lost += 1
                break
            except TracerError:
                sample.timeouts += 1
        # The copy of the last reply comes within this time.
        await asyncio.sleep(DUPLICATE_WINDOW)
        sample.stats = tracer.stats
    sample.frames = [frame async for frame in frames]
    return sample


def _report_counts(sample: _Sample, report: Callable[[Finding], None], *, other_master: bool) -> None:
    stats = sample.stats
    if stats is None:
        return
    total = stats.frames + stats.corrupt_frames
    if stats.corrupt_frames:
        share = 100 * stats.corrupt_frames / total
        report(finding("reply-damaged", f"{stats.corrupt_frames} of {total} frames ({share:.0f} %)"))
    else:
        report(finding("reply-undamaged", f"{total} frames"))
    in_order = True
    if stats.late:
        in_order = False
        report(finding("reply-late", f"{stats.late} of {_REQUESTS} came after their time of 1 s"))
    if stats.unsolicited and not other_master:
        in_order = False
        report(_unsolicited(sample, stats.unsolicited))
    if in_order:
        report(finding("reply-in-order"))
    failed = sample.timeouts + sample.lost
    if failed:
        lost = ", and the connection was lost" if sample.lost or stats.links > 1 else ""
        report(finding("reply-missing", f"{failed} of {_REQUESTS} requests within 1 s{lost}"))
    else:
        report(finding("reply-complete", f"{_REQUESTS} of {_REQUESTS}"))
    if sample.readings:
        report(_latency([reading.age for reading in sample.readings]))


def _unsolicited(sample: _Sample, count: int) -> Finding:
    """Return whether unsolicited frames are copies of answers, or answers to somebody else."""
    answers = {reading.data for reading in sample.readings}
    if all(_decoded(frame) in answers for frame in sample.frames if is_reply(frame)):
        return finding("reply-doubled", f"{count} of {_REQUESTS}")
    return finding("line-other-master", f"{count} frames beside the {_REQUESTS} replies")


def _decoded(frame: Frame) -> RealtimeData | None:
    try:
        return RealtimeData.from_bytes(frame.data)
    except ValueError:
        return None


def _latency(seconds: list[float]) -> Finding:
    low, middle, high = (1000 * value for value in (min(seconds), median(seconds), max(seconds)))
    evidence = f"{low:.0f} / {middle:.0f} / {high:.0f} ms (min/median/max), jitter {1000 * pstdev(seconds):.0f} ms"
    return finding("reply-slow" if middle > 1000 * _SLOW else "reply-latency", evidence)


def _report_format(sample: _Sample, report: Callable[[Finding], None]) -> None:
    if sample.malformed:
        first = sample.malformed[0]
        report(finding("reply-malformed", f"{len(sample.malformed)} of {_REQUESTS}, data {first.raw.hex().upper()}"))
        return
    replies = [frame for frame in sample.frames if is_reply(frame)]
    unusual = []
    ids = {frame.controller_id for frame in replies} - {0}
    if ids:
        unusual.append(f"reply ID {', '.join(f'{each:02X}' for each in sorted(ids))} instead of 00")
    reserved = {(at, frame.data[at]) for frame in replies if len(frame.data) == 24 for at in (4, 5, 23)}
    unusual += [f"reserved byte {at} is {value:02X}" for at, value in sorted(reserved) if value]
    if unusual:
        report(finding("reply-unusual", "; ".join(unusual[:4])))
    elif replies:
        report(finding("reply-format", f"ID 00, 24 bytes, byte 15 is {replies[-1].data[15]:02X}"))


def _load_hint(data: RealtimeData) -> Finding:
    """Say what the load tells about its mode: no command reads the mode."""
    protections = {
        "over-discharge": data.over_discharge,
        "short circuit": data.load_short_circuit,
        "overload": data.overload,
    }
    active = " and ".join(name for name, is_active in protections.items() if is_active)
    light = f"PV {data.pv_voltage:.1f} V"
    if active:
        return finding("reply-load", f"off by a protection: {active}", severity=Severity.NOTE)
    if data.pv_voltage >= _DAYLIGHT:
        mode = "so its mode is not dusk to dawn" if data.load_on else "as with dusk to dawn"
        return finding("reply-load", f"{'on' if data.load_on else 'off'} in daylight ({light}), {mode}")
    mode = "as with dusk to dawn" if data.load_on else "so its mode is not dusk to dawn"
    return finding("reply-load", f"{'on' if data.load_on else 'off'} in the dark ({light}; night is no fault), {mode}")
