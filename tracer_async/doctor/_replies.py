"""The checks of the replies: 20 readings, with their latency, damage and oddities."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median, pstdev

from tracer_async.client.client import TracerClient
from tracer_async.client.reading import Reading
from tracer_async.doctor._contents import Contents, hexadecimal, is_foreign_request, is_reply, is_request_data
from tracer_async.doctor._findings import Finding, Severity, finding, noise_note
from tracer_async.doctor._traffic import Traffic
from tracer_async.errors import LinkError, MalformedReplyError, ResponseTimeoutError, TracerError
from tracer_async.protocol import DUPLICATE_WINDOW, CommandCode, Frame, RealtimeData, SessionStats

__all__ = ["are_other_answers", "check_replies", "other_command"]

_REQUESTS = 20
_SLOW = 0.7
"""Seconds of the median latency above which a line is slow.

A reply takes 0.06 s on the wire. `tracer-async share` takes up to 0.5 s, because it waits 0.25 s between readings.
"""

_REST = 1.0
"""Seconds to wait for the rest after unsolicited replies: only all replies together tell whether they are copies."""

_NOISE = {"line-noise", "line-text", "line-telnet"}
"""Findings that explain bytes outside of frames."""

_DAYLIGHT = 5.0
"""Volts at the panel that only light makes: a dark one reads 0.2 to 0.4 V."""


@dataclass
class _Sample:
    """What the requests have shown."""

    requests: int = 0
    """How many were made: a lost connection is the end."""
    readings: list[Reading] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    """Seconds from each answered request to its reply."""
    timeouts: int = 0
    answered_by_requests: int = 0
    """How often a request of another master came instead of the reply."""
    malformed: list[MalformedReplyError] = field(default_factory=list)
    lost: int = 0
    frames: list[Frame] = field(default_factory=list)
    earlier: list[Frame] = field(default_factory=list)
    """What the connection before has received."""
    stats: SessionStats | None = None
    received: Contents = field(default_factory=lambda: Contents.of(b""))
    losses: list[str] = field(default_factory=list)
    """Why a connection was lost, each reason once."""


async def check_replies(
    url: str,
    ssl_context: ssl.SSLContext | None,
    report: Callable[[Finding], None],
    *,
    known: set[str],
    earlier: list[Frame],
) -> None:
    """Take 20 readings and report on them.

    *known* are the identifiers of earlier findings, which are not repeated. *earlier* are the frames of the connection
    before: copies of them can arrive now.
    """
    sample = await _take(url, ssl_context)
    sample.earlier = earlier
    if sample.received.noise and known.isdisjoint(_NOISE):
        noise = sample.received.noise
        report(noise_note(f"{len(noise)} bytes in {sample.requests} requests: {hexadecimal(noise, 12)}"))
    _report_counts(sample, report, other_master="line-other-master" in known)
    _report_format(sample, report)
    if sample.readings:
        report(_load_hint([reading.data for reading in sample.readings if reading.data is not None][-1]))


async def _take(url: str, ssl_context: ssl.SSLContext | None) -> _Sample:
    sample, traffic = _Sample(), Traffic()
    client = TracerClient(
        url, retries=0, start_offline=True, backoff=(0.2, 1.0), ssl_context=ssl_context, recorder=traffic
    )
    async with client as tracer:
        frames = tracer.frames()
        for number in range(1, _REQUESTS + 1):
            sample.requests = number
            try:
                sample.readings.append(await tracer.read())
                sample.latencies.append(traffic.received_at - traffic.sent_at)
            except ResponseTimeoutError:
                sample.timeouts += 1
            except MalformedReplyError as error:
                if is_request_data(error.raw):
                    sample.answered_by_requests += 1
                else:
                    sample.malformed.append(error)
            except LinkError:
                sample.lost += 1
                break
            except TracerError:
                sample.timeouts += 1
        # The copy of the last reply comes within this time.
        await asyncio.sleep(DUPLICATE_WINDOW)
        if tracer.stats.unsolicited:
            await asyncio.sleep(_REST)
        sample.stats = tracer.stats
    sample.frames = [frame async for frame in frames]
    sample.received = Contents.of(bytes(traffic.received))
    sample.losses = traffic.losses
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
        report(finding("reply-late", f"{stats.late} of {sample.requests} came after their time of 1 s"))
    if (stats.unsolicited or sample.answered_by_requests) and not other_master:
        in_order = False
        report(_unsolicited(sample, stats.unsolicited))
    if in_order:
        report(finding("reply-in-order"))
    failed = sample.timeouts + sample.lost + sample.answered_by_requests
    if failed:
        report(
            finding("reply-missing", "; ".join([f"{failed} of {sample.requests} requests within 1 s", *sample.losses]))
        )
    else:
        report(finding("reply-complete", f"{sample.requests} of {sample.requests}"))
    if sample.readings:
        report(_latency(sample.latencies))


def are_other_answers(frames: list[Frame], unanswered: int) -> bool:
    """Return whether *frames*, which do not answer readings, are a controller's wrong answers to them.

    *unanswered* is the number of readings without an answer. No other master sends a command that does not exist. Known
    commands are those of another master, unless there is one for each reading without an answer.
    """
    commands = {frame.command for frame in frames}
    if commands.isdisjoint(CommandCode):
        return True
    return len(commands) == 1 and CommandCode.READ_REALTIME not in commands and len(frames) == unanswered


def other_command(frames: list[Frame], requests: int, severity: Severity | None = None) -> Finding:
    """Return the finding that *frames* were the answers to readings. There were *requests* readings."""
    commands = ", ".join(f"{command:02X}" for command in sorted({frame.command for frame in frames})[:4])
    first = hexadecimal(frames[0].encode(start_up=False))
    count = f"{len(frames)} frame{'' if len(frames) == 1 else 's'} after {requests} requests"
    evidence = f"{count}, command {commands} instead of A0: {first}"
    return finding("reply-other-command", evidence, severity=severity)


def _unsolicited(sample: _Sample, count: int) -> Finding:
    """Return whether unsolicited frames are wrong answers, copies of answers, or answers to somebody else."""
    asked = sum(map(is_foreign_request, sample.frames))
    if asked:
        return finding("line-other-master", f"{asked} requests beside the {sample.requests} of this program")
    others = [frame for frame in sample.frames if frame.command != CommandCode.READ_REALTIME]
    if others:
        if are_other_answers(others, sample.timeouts):
            return other_command(others, sample.requests)
        return finding("line-other-master", f"{count} frames beside {len(sample.readings)} replies")
    if _are_copies(sample):
        return finding("reply-doubled", f"{count} of {sample.requests}")
    return finding("line-other-master", f"{count} frames beside {len(sample.readings)} replies")


def _are_copies(sample: _Sample) -> bool:
    """Return whether the replies are those to the requests of this program, and copies of them."""
    replies = list(filter(is_reply, sample.frames))
    earlier = list(filter(is_reply, sample.earlier))
    answers = {reading.data for reading in sample.readings} | set(map(_decoded, earlier)) - {None}
    if all(_decoded(frame) in answers for frame in replies):
        return True
    # A late copy can be taken for the answer to the next request. The reply to that one is then unsolicited. So count:
    # there is one reply for each answered request, and each one comes at most twice. An earlier reply among them is a
    # copy, or one of the same values.
    numbers = (len(set(replies)), len(set(replies) - set(earlier)))
    return len(sample.readings) in numbers and max(Counter(replies).values()) <= 2


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
        report(
            finding("reply-malformed", f"{len(sample.malformed)} of {sample.requests}, data {hexadecimal(first.raw)}")
        )
        return
    replies = [frame for frame in sample.frames if is_reply(frame)]
    unusual = []
    ids = {frame.controller_id for frame in replies} - {0}
    if ids:
        unusual.append(f"reply ID {', '.join(f'{each:02X}' for each in sorted(ids))} instead of 00")
    # A frame that answered no request may have any length.
    whole = [frame.data for frame in replies if len(frame.data) == 24]
    reserved = {(at, data[at]) for data in whole for at in (4, 5, 23)}
    unusual += [f"reserved byte {at} is {value:02X}" for at, value in sorted(reserved) if value]
    if unusual:
        report(finding("reply-unusual", "; ".join(unusual[:4])))
    elif whole:
        report(finding("reply-format", f"ID 00, 24 bytes, byte 15 is {whole[-1][15]:02X}"))


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
        state = "on, although a protection is reported" if data.load_on else "off by a protection"
        return finding("reply-load", f"{state}: {active}", severity=Severity.NOTE)
    if data.pv_voltage >= _DAYLIGHT:
        mode = "so its mode is not dusk to dawn" if data.load_on else "as with dusk to dawn"
        return finding("reply-load", f"{'on' if data.load_on else 'off'} in daylight ({light}), {mode}")
    mode = "as with dusk to dawn" if data.load_on else "so its mode is not dusk to dawn"
    return finding("reply-load", f"{'on' if data.load_on else 'off'} in the dark ({light}; night is no fault), {mode}")
