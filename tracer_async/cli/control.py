"""``tracer-async load`` and ``tracer-async settings``: what changes something in the controller."""

from __future__ import annotations

import sys

import click

from tracer_async.cli.exit_codes import ExitCode
from tracer_async.cli.options import client_of, link_options, resolved_url
from tracer_async.cli.running import run_async
from tracer_async.errors import LinkLostError, TracerError
from tracer_async.protocol import BatteryType, ControlSettings, Frame, LoadMode, WriteSettings

__all__ = ["load", "mode_word", "settings"]

_WORDS = {
    LoadMode.DUSK_TO_DAWN: "dusk-to-dawn",
    LoadMode.TEST: "test",
    LoadMode.MANUAL: "manual",
    LoadMode.OFF: "off",
}
_MODES = {_WORDS.get(mode, f"{mode.value}h"): mode for mode in LoadMode}
_MODES_2 = {word: mode for word, mode in _MODES.items() if mode is LoadMode.OFF or word.endswith("h")}

_CAUTION = (
    "This replaces every setting of the controller. The protocol has no command that reads settings back, and writing "
    "them is unverified on hardware: note down what the MT-5 meter shows before you go on."
)

_UNWRITTEN = (
    "Nothing was written. The protocol has no command that reads settings back, and writing them is unverified on "
    "hardware."
)


def mode_word(mode: LoadMode) -> str:
    """Return the word that the command line has for a load mode."""
    return _WORDS.get(mode, f"{mode.value}h")


@click.command(short_help="Switch the load on or off.")
@click.argument("words", nargs=-1, metavar="[URL] on|off")
@link_options
@click.pass_context
def load(ctx: click.Context, words: tuple[str, ...], timeout: float, retries: int) -> None:
    """Switch the load on or off, and print the state that the controller confirms.

    It follows only while its load mode is manual and no protection is active. A load that was left as it was, or that
    may be on or off, has an exit code of its own.
    """
    if not words:
        raise click.UsageError("On or off is missing: tracer-async load URL on", ctx)
    *urls, state = words
    if len(urls) > 1:
        raise click.UsageError("One controller at a time: tracer-async load URL on", ctx)
    if state not in ("on", "off"):
        wrong = f"{state!r} is neither on nor off" if urls or ":" not in state else "On or off is missing"
        raise click.UsageError(f"{wrong}: tracer-async load URL on", ctx)
    url = resolved_url(ctx, urls[0] if urls else "")

    async def switch() -> None:
        async with client_of(url, timeout, retries) as tracer:
            confirmed = await tracer.set_load(state == "on")
        click.echo(f"load {confirmed.name.lower()}")

    run_async(switch)


@click.command(short_help="Write all control settings at once.")
@click.argument("url", required=False, metavar="[URL]")
@click.option(
    "--battery-type",
    type=click.Choice([kind.name.lower() for kind in BatteryType], case_sensitive=False),
    required=True,
)
@click.option("--capacity", type=int, required=True, metavar="AH", help="10 to 2550 Ah, in steps of 10.")
@click.option(
    "--temperature-compensation",
    type=click.IntRange(0, 10),
    required=True,
    metavar="0..10",
    help="Its coefficient; the protocol names no unit.",
)
@click.option(
    "--load-mode-1",
    type=click.Choice(list(_MODES), case_sensitive=False),
    required=True,
    metavar="MODE",
    help="dusk-to-dawn, 1h to 15h after dusk, test, manual or off.",
)
@click.option(
    "--load-mode-2",
    type=click.Choice(list(_MODES_2), case_sensitive=False),
    required=True,
    metavar="MODE",
    help="A second stretch of the night: 1h to 15h, or off.",
)
@click.option("--dry-run", is_flag=True, help="Print the frame and its meaning; write nothing. Needs no URL.")
@click.option("--yes", is_flag=True, help="Do not ask before writing.")
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
    timeout: float,
    retries: int,
) -> None:
    """Write all control settings at once.

    No command of the protocol reads them back, and writing them is unverified on hardware. A write that gets no answer
    is never repeated by itself.
    """
    try:
        values = ControlSettings(
            battery_type=BatteryType[battery_type.upper()],
            battery_capacity=capacity,
            temperature_compensation=temperature_compensation,
            load_mode_1=_MODES[load_mode_1.lower()],
            load_mode_2=_MODES[load_mode_2.lower()],
        )
    except ValueError as error:
        raise click.UsageError(str(error), ctx) from error
    if dry_run:
        click.echo("\n".join(_explained(values)))
        return
    checked = resolved_url(ctx, url or "")
    if not yes:
        _confirm(ctx, checked, values)

    async def write() -> None:
        async with client_of(checked, timeout, retries) as tracer:
            try:
                await tracer.write_settings(values)
            except TracerError as error:
                # Any other error is one of the reading that comes before: then the settings were not sent.
                if isinstance(error, LinkLostError) or getattr(error, "command", None) == WriteSettings.code:
                    click.echo("The settings may have been written or not: look at the MT-5 meter.", err=True)
                raise
        click.echo("settings acknowledged by the controller")

    run_async(write)


def _confirm(ctx: click.Context, url: str, values: ControlSettings) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError(
            "There is no terminal to ask at: nothing was written. Check with --dry-run, then write with --yes.", ctx
        )
    click.echo("\n".join(_meaning(values)), err=True)
    click.echo(f"\n{_CAUTION}\n", err=True)
    if not click.confirm(f"Write these settings to {url}?", err=True):
        click.echo("Nothing was written.", err=True)
        ctx.exit(ExitCode.NOT_CONFIRMED)


def _explained(values: ControlSettings) -> list[str]:
    """Return the frame that would be sent, and each of its parts."""
    data = values.to_bytes()
    # What the client sends as long as nobody gives it another controller ID.
    wire = Frame(0x16, WriteSettings.code, data).encode()
    return [
        f"frame  {wire.hex(' ').upper()}",
        f"data   {data.hex(' ').upper()}",
        "",
        *_meaning(values),
        "",
        _UNWRITTEN,
    ]


def _meaning(values: ControlSettings) -> list[str]:
    return [
        f"battery type              {values.battery_type.name.lower()}",
        f"battery capacity          {values.battery_capacity} Ah",
        f"temperature compensation  {values.temperature_compensation}",
        f"load mode 1               {mode_word(values.load_mode_1)}",
        f"load mode 2               {mode_word(values.load_mode_2)}",
    ]
