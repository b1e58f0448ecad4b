"""``tracer-async decode``: what a capture holds, event by event or as a table of readings, and a summary."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import click

from tracer_async.capture import CapturedEvent, CaptureFormat, read_capture
from tracer_async.cli.export import TableFormat, export, progress, size_of
from tracer_async.cli.formats import FLAGS, to_mapping
from tracer_async.cli.options import verbose_option
from tracer_async.cli.tally import Tally, counted
from tracer_async.errors import CaptureError
from tracer_async.protocol import (
    START_UP,
    CommandCode,
    ControlSettings,
    CorruptFrame,
    Frame,
    LoadState,
    Noise,
    RealtimeData,
)

__all__ = ["Meaning", "decode", "meaning_of"]

_SHOWN = 16


class Meaning(NamedTuple):
    """What an event is: a kind to count by, words for people, and values for programs."""

    kind: str
    words: str
    values: dict[str, Any]


@click.command(
    short_help="Decode a capture file.",
    epilog="To watch a line: cat /dev/ttyUSB1 | tracer-async decode -",
)
@click.argument("file", type=click.File("rb"), metavar="FILE|-")
@click.option("--json", "as_json", is_flag=True, help="List the events as JSON lines; the last one is the summary.")
@click.option(
    "--format",
    "table_format",
    type=click.Choice([form.value for form in TableFormat]),
    help="Write the readings as a table, instead of a list of events.",
)
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the table to FILE, not to standard output. A file that is there is replaced when the new one is whole.",
)
@click.option(
    "--input-format",
    type=click.Choice([form.value for form in CaptureFormat]),
    help="What the capture is written in, instead of finding it out.",
)
@verbose_option
def decode(
    file: BinaryIO, as_json: bool, table_format: str | None, path: Path | None, input_format: str | None
) -> None:
    """Decode a capture: frames with their meaning, damaged frames and noise with their offsets, and a summary.

    \b
    A capture is one of
      binary   the bytes of a line as they are
      hex      text: EB90EB90, eb 90, EB:90 or 0xEB, 0x90
      jsonl    a line for each burst: {"from": "controller", "hex": "eb90..."}

    Offsets are bytes, in a jsonl capture bytes of that sender. Damage is listed, and is no error.

    With --format, the readings alone are written, and a summary of the rest goes to standard error.

    \b
    A table is one of
      csv      a header, and a row for each reading
      json     a JSON object a line for each reading
      npz      NumPy arrays, one a column; needs the extra "bulk"
      parquet  for pandas, Polars, DuckDB; needs the extra "parquet"

    Its columns are the offset, the sender if the capture names it, and all of a reading: volts, amperes, degrees
    Celsius, flags, and the four reserved bytes. Of several senders, npz and Parquet hold one after the other, chunk
    by chunk. The files may be of any size: what is in memory is a few chunks.
    """  # noqa: D301  # click's mark, not an escape sequence of this text
    form = CaptureFormat(input_format) if input_format else None
    if table_format is None:
        if path is not None:
            raise click.UsageError("--output needs --format.")
        with progress(file, quiet=sys.stdout.isatty()) as followed, _naming(file):
            _list(followed, form, as_json=as_json)
        return
    table = TableFormat(table_format)
    if as_json:
        raise click.UsageError("--json lists events; the readings as JSON lines are --format json.")
    if path is None and not table.is_text and sys.stdout.isatty():
        raise click.UsageError(f"--format {table} needs --output FILE, for standard output is a terminal.")
    with progress(file, quiet=path is None and sys.stdout.isatty()) as followed, _naming(file):
        export(followed, form, table, path, live=size_of(file) is None)


@contextmanager
def _naming(file: BinaryIO) -> Iterator[None]:
    try:
        yield
    except CaptureError as error:
        raise CaptureError(f"{file.name}: {error}") from error


def _list(file: BinaryIO, form: CaptureFormat | None, *, as_json: bool) -> None:
    show = _show_json if as_json else _show
    kinds: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    try:
        for captured in _told_apart(read_capture(file, form)):
            meaning = meaning_of(captured)
            kinds[meaning.kind] += 1
            sizes[meaning.kind] += captured.size
            show(captured, meaning)
    except CaptureError:
        if kinds:
            _summarize(kinds, sizes, as_json=as_json)
        raise
    _summarize(kinds, sizes, as_json=as_json)


def _told_apart(events: Iterator[CapturedEvent]) -> Iterator[CapturedEvent]:
    """Part the start-up bytes of a request from other noise before them."""
    for captured in events:
        raw = captured.event.raw if isinstance(captured.event, Noise) else b""
        before = len(raw) - len(START_UP)
        if before > 0 and raw.endswith(START_UP):
            yield captured._replace(event=Noise(raw[:before]))
            yield captured._replace(event=Noise(START_UP), offset=captured.offset + before)
        else:
            yield captured


def meaning_of(captured: CapturedEvent) -> Meaning:
    """Say what an event of a capture is."""
    match captured.event:
        case Frame() as frame:
            return _meaning_of_frame(frame, captured.sender)
        case CorruptFrame(raw, reason):
            return Meaning("damaged", f"{reason}, {len(raw)} bytes: {_hex(raw)}", {"reason": reason, "raw": raw.hex()})
        case Noise(raw):
            if len(raw) > 1 and START_UP.endswith(raw):
                return Meaning("start-up", _hex(raw), {"raw": raw.hex()})
            # A bridge's banner is easier to read as text.
            text = repr(raw[:48].decode("ascii")) if raw.isascii() and raw.decode("ascii").strip().isprintable() else ""
            return Meaning("noise", f"{counted(len(raw), 'byte')}: {text or _hex(raw)}", {"raw": raw.hex()})


def _meaning_of_frame(frame: Frame, sender: str) -> Meaning:
    # Data has no mark of its direction. The sender's name tells it, and so does an ID that no reply has.
    asked = sender not in ("", "controller") or (not sender and frame.controller_id != 0)
    try:
        match frame.command, len(frame.data):
            case CommandCode.READ_REALTIME, 0 | 1:
                return Meaning("read request", f"ID {frame.controller_id:02X}", {})
            case CommandCode.READ_REALTIME, _:
                data = RealtimeData.from_bytes(frame.data)
                return Meaning("reading", _reading_words(data), {"reading": to_mapping(data)})
            case CommandCode.MANUAL_CONTROL, _:
                state = LoadState.from_bytes(frame.data)
                word = state.name.lower()
                kind = "load request" if asked else "load state" if sender else "load"
                return Meaning(kind, word, {"load_on": bool(state)})
            case CommandCode.WRITE_SETTINGS, 0:
                return Meaning("settings reply", "", {})
            case CommandCode.WRITE_SETTINGS, _:
                settings = ControlSettings.from_bytes(frame.data)
                return Meaning("settings", _settings_words(settings), {"settings": _settings_values(settings)})
    except ValueError as error:
        return Meaning("malformed", str(error), {"reason": str(error)})
    return Meaning("unknown", f"command {frame.command:02X}, data {_hex(frame.data) or 'none'}", {})


def _reading_words(data: RealtimeData) -> str:
    words = [
        f"battery {data.battery_voltage:5.2f} V {data.battery_temperature} °C",
        f"PV {data.pv_voltage:5.2f} V",
        f"charge {data.charge_current:.2f} A",
        f"load {'on' if data.load_on else 'off'} {data.load_current:.2f} A",
        *(word for name, word in FLAGS.items() if getattr(data, name)),
    ]
    return ", ".join(words)


def _settings_values(settings: ControlSettings) -> dict[str, str | int]:
    return {
        "battery_type": settings.battery_type.name.lower(),
        "battery_capacity": settings.battery_capacity,
        "temperature_compensation": settings.temperature_compensation,
        "load_mode_1": settings.load_mode_1.name.lower(),
        "load_mode_2": settings.load_mode_2.name.lower(),
    }


def _settings_words(settings: ControlSettings) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in _settings_values(settings).items())


def _show(captured: CapturedEvent, meaning: Meaning) -> None:
    # The name comes out of the file: no control character of it may reach the terminal.
    name = "".join(letter if letter.isprintable() else "?" for letter in captured.sender[:12])
    sender = f"{name:12} " if name else ""
    line = f"{captured.offset:>9}  {sender}{meaning.kind:14} {meaning.words}".rstrip()
    color = {"damaged": "red", "malformed": "red", "noise": "yellow", "start-up": "bright_black"}.get(meaning.kind)
    click.echo(click.style(line, fg=color) if color else line)


def _show_json(captured: CapturedEvent, meaning: Meaning) -> None:
    event = captured.event
    values = {"offset": captured.offset, "size": captured.size, "from": captured.sender or None, "kind": meaning.kind}
    if isinstance(event, Frame):
        values |= {"controller_id": event.controller_id, "command": f"{event.command:02X}", "data": event.data.hex()}
    click.echo(json.dumps(values | meaning.values))


def _summarize(kinds: Counter[str], sizes: Counter[str], *, as_json: bool) -> None:
    others = ("damaged", "noise", "start-up")
    frames = {kind: count for kind, count in kinds.items() if kind not in others}
    tally = Tally(
        frames=sum(frames.values()),
        damaged=kinds["damaged"],
        damaged_bytes=sizes["damaged"],
        noise_bytes=sizes["noise"],
        start_up_bytes=sizes["start-up"],
        bytes=sizes.total(),
    )
    if as_json:
        summary = {key: value for key, value in asdict(tally).items() if key != "readings"}
        click.echo(json.dumps({"kind": "summary", **summary, "frames_by_kind": frames}))
        return
    click.echo(str(tally))
    for kind, count in sorted(frames.items()):
        click.echo(f"{count:>9}  {kind}")


def _hex(raw: bytes) -> str:
    return raw[:_SHOWN].hex(" ").upper() + (" ..." if len(raw) > _SHOWN else "")
