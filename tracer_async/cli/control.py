"""``tracer-async load`` and ``tracer-async settings``: the commands that change something in the controller."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping

import click

from tracer_async.cli.event_loop import run_async
from tracer_async.cli.exit_codes import ExitCode
from tracer_async.cli.formats import Format
from tracer_async.cli.options import Number, client_of, format_option, link_options, resolved_url
from tracer_async.cli.settings_words import LOAD_MODES, LOAD_MODES_2, settings_to_dict
from tracer_async.errors import LinkLostError, TracerError
from tracer_async.protocol import BatteryType, ControlSettings, Frame, LoadMode, WriteSettings
from tracer_async.records import Value, utc

__all__ = ["load", "settings"]

_CAUTION = (
    "This replaces every setting of the controller. The protocol has no command that reads settings back, and writing "
    "them is unverified on hardware. Write down what the MT-5 meter shows before you go on."
)

_UNWRITTEN = (
    "Nothing was written. The protocol has no command that reads settings back, and writing them is unverified on "
    "hardware."
)


def _run(url: str, output: Format | None, command: Callable[[], Awaitable[tuple[str, Mapping[str, Value]]]]) -> None:
    """Run *command*, and print the sentence or, with JSON, the values that it returns, or its error."""

    async def run() -> None:
        sentence, values = await command()
        click.echo(_record(url, {"ok": True, **values}) if output is Format.JSON else sentence)

    try:
        run_async(run)
    except TracerError as error:
        if output is Format.JSON:
            click.echo(_record(url, {"ok": False, "error": str(error)}))
        raise


def _record(url: str, values: Mapping[str, Value]) -> str:
    return json.dumps({"time": utc(time.time()), "address": url, **values})


@click.command(short_help="Switch the load on or off.")
@click.argument("words", nargs=-1, metavar="[URL] on|off")
@format_option(Format.TEXT, Format.JSON)
@link_options
@click.pass_context
def load(ctx: click.Context, words: tuple[str, ...], output: Format | None, timeout: float, retries: int) -> None:
    """Switch the load on or off, and print the state that the controller confirms.

    The order of URL and state does not matter. The controller obeys only while its load mode 1 is manual and no
    protection is active. If it does not switch the load, or the state is unknown, the exit code says so.
    """
    url, state = _url_and_state(ctx, words)

    async def switch() -> tuple[str, Mapping[str, Value]]:
        async with client_of(url, timeout, retries) as tracer:
            confirmed = await tracer.set_load(state == "on")
        return f"load {confirmed}", {"load_on": bool(confirmed)}

    _run(url, output, switch)


def _url_and_state(ctx: click.Context, words: tuple[str, ...]) -> tuple[str, str]:
    right = "tracer-async load URL on"
    states = [word.lower() for word in words if word.lower() in ("on", "off")]
    urls = [word for word in words if word.lower() not in ("on", "off")]
    if not states:
        wrong = f"{urls[-1]!r} is neither on nor off" if len(urls) == 2 else "On or off is missing"
        raise click.UsageError(f"{wrong}. Example: {right}", ctx)
    if len(states) > 1:
        raise click.UsageError(f"Give on or off once. Example: {right}", ctx)
    if len(urls) > 1:
        raise click.UsageError(f"Give one controller. Example: {right}", ctx)
    return resolved_url(ctx, urls[0] if urls else ""), states[0]


def _with_capacity(capacity: int) -> ControlSettings:
    off = LoadMode.OFF
    return ControlSettings(
        battery_type=BatteryType.GEL,
        battery_capacity=capacity,
        temperature_compensation=0,
        load_mode_1=off,
        load_mode_2=off,
    )


@click.command(short_help="Write all control settings at once.")
@click.argument("url", required=False, metavar="[URL]")
@click.option(
    "--battery-type",
    type=click.Choice([kind.name.lower() for kind in BatteryType], case_sensitive=False),
    required=True,
)
@click.option(
    "--capacity",
    type=Number(int, _with_capacity),
    required=True,
    metavar="AH",
    help="10 to 2550 Ah, in steps of 10.",
)
@click.option(
    "--temperature-compensation",
    type=click.IntRange(0, 10),
    required=True,
    metavar="0..10",
    help="The coefficient; the protocol names no unit.",
)
@click.option(
    "--load-mode-1",
    type=click.Choice(list(LOAD_MODES), case_sensitive=False),
    required=True,
    metavar="MODE",
    help="dusk-to-dawn, 1h to 15h after dusk, test, manual or off.",
)
@click.option(
    "--load-mode-2",
    type=click.Choice(list(LOAD_MODES_2), case_sensitive=False),
    required=True,
    metavar="MODE",
    help="Second period of the night: 1h to 15h, or off.",
)
@click.option("--dry-run", is_flag=True, help="Print the frame and its meaning; write nothing. Needs no URL.")
@click.option("--yes", is_flag=True, help="Do not ask before writing.")
@format_option(Format.TEXT, Format.JSON)
@link_options
@click.pass_context
def settings(
    ctx: click.Context,
    *,
    url: str | None,
    battery_type: str,
    capacity: int,
    temperature_compensation: int,
    load_mode_1: str,
    load_mode_2: str,
    dry_run: bool,
    yes: bool,
    output: Format | None,
    timeout: float,
    retries: int,
) -> None:
    """Write all control settings at once.

    No command of the protocol reads them back, and writing them is unverified on hardware. If a write gets no answer,
    it is not sent again.
    """
    values = ControlSettings(
        battery_type=BatteryType[battery_type.upper()],
        battery_capacity=capacity,
        temperature_compensation=temperature_compensation,
        load_mode_1=LOAD_MODES[load_mode_1.lower()],
        load_mode_2=LOAD_MODES[load_mode_2.lower()],
    )
    if dry_run:
        click.echo(_dry_run(values, output))
        return
    checked = resolved_url(ctx, url or "")
    if not yes:
        _confirm(ctx, checked, values)

    async def write() -> tuple[str, Mapping[str, Value]]:
        async with client_of(checked, timeout, retries) as tracer:
            try:
                await tracer.write_settings(values)
            except TracerError as error:
                # Any other error is one of the reading that comes before: then the settings were not sent.
                if isinstance(error, LinkLostError) or getattr(error, "command", None) == WriteSettings.code:
                    click.echo("The settings may have been written or not. Check them on the MT-5 meter.", err=True)
                raise
        return "settings acknowledged by the controller", settings_to_dict(values)

    _run(checked, output, write)


def _confirm(ctx: click.Context, url: str, values: ControlSettings) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError(
            "Nothing was written: standard input is not a terminal, so nobody can confirm. Check the settings with "
            "--dry-run, then write them with --yes.",
            ctx,
        )
    click.echo("\n".join(_meaning(values)), err=True)
    click.echo(f"\n{_CAUTION}\n", err=True)
    if not click.confirm(f"Write these settings to {url}?", err=True):
        click.echo("Nothing was written.", err=True)
        ctx.exit(ExitCode.NOT_CONFIRMED)


def _dry_run(values: ControlSettings, output: Format | None) -> str:
    """Return the frame that would be sent, and the meaning of its data."""
    data = values.to_bytes()
    # What the client sends unless it is given another controller ID.
    wire = Frame(0x16, WriteSettings.code, data).encode()
    if output is Format.JSON:
        return json.dumps({"frame": wire.hex(), "data": data.hex(), **settings_to_dict(values)})
    lines = [f"frame  {wire.hex(' ').upper()}", f"data   {data.hex(' ').upper()}", "", *_meaning(values)]
    return "\n".join([*lines, "", _UNWRITTEN])


def _meaning(values: ControlSettings) -> list[str]:
    units = {"battery_capacity": " Ah"}
    return [
        f"{name.replace('_', ' '):24}  {value}{units.get(name, '')}" for name, value in settings_to_dict(values).items()
    ]
