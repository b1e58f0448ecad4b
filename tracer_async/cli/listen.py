"""``tracer-async listen``: the exchanges of a controller with another master, or their readings. Never sends a byte."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import click

from tracer_async import Reading
from tracer_async.capture import CapturedEvent
from tracer_async.cli import formats
from tracer_async.cli.event_loop import run_async
from tracer_async.cli.formats import TO_LINE, Format, local
from tracer_async.cli.live import can_draw
from tracer_async.cli.meanings import meaning_of
from tracer_async.cli.options import format_option, resolved_url, show_warnings, usage_errors, verbose_option
from tracer_async.cli.systemd import notify_ready
from tracer_async.protocol import Frame
from tracer_async.records import utc
from tracer_async.sharing import Listener, ObservedExchange

__all__ = ["listen"]

T = TypeVar("T")


@click.command(short_help="Show what another master reads.")
@click.argument("url", required=False, metavar="[URL]", callback=lambda ctx, _param, url: resolved_url(ctx, url or ""))
@click.argument("other", required=False, metavar="[URL]")
@click.option(
    "--readings", is_flag=True, help="Show the readings only, as `watch` does: a live view on a terminal, else lines."
)
@click.option("-p", "--plain", is_flag=True, help="Print a line for each reading, on a terminal as well.")
@click.option("-n", "--count", type=click.IntRange(1), metavar="N", help="End after N exchanges, or N readings.")
@format_option(Format.TEXT, Format.JSON, Format.CSV, Format.LINE_PROTOCOL)
@click.option(
    "-t",
    "--timeout",
    type=float,
    default=0.3,
    show_default=True,
    metavar="SECONDS",
    help="Time within which the controller replies.",
)
@verbose_option
@click.pass_context
def listen(
    ctx: click.Context,
    *,
    url: str,
    other: str | None,
    readings: bool,
    plain: bool,
    count: int | None,
    output: Format | None,
    timeout: float,
) -> None:
    """Listen beside the MT-5 meter or another program, until Ctrl-C. Never sends a byte.

    Give one URL if requests and replies come on one wire, or two URLs, one for each direction. Prints each request with
    its reply.
    """
    if not readings and output in (Format.CSV, Format.LINE_PROTOCOL):
        raise click.UsageError(f"The format {output} needs --readings.")
    with usage_errors():
        listener = Listener(*([url, other] if other else [url]), timeout=timeout)

    is_live = readings and output is None and not plain and can_draw(ctx)

    def show_exchange(exchange: ObservedExchange) -> None:
        click.echo(_to_json(exchange) if output is Format.JSON else _to_text(exchange))

    def show_reading(reading: Reading) -> None:
        if output in TO_LINE:
            click.echo(TO_LINE[output](url, reading))
        elif reading.data is not None:
            click.echo(formats.to_plain(reading.time, reading.data))

    async def follow() -> None:
        async with listener:
            notify_ready()
            if not readings:
                await _show(aiter(listener), show_exchange, count)
                return
            if is_live:
                from tracer_async.cli.listening_view import show_readings

                await show_readings(listener, [url, other] if other else [url], count)
                return
            heard = listener.readings()
            if output not in (Format.JSON, Format.LINE_PROTOCOL):
                click.echo(formats.CSV_HEADER if output is Format.CSV else formats.PLAIN_HEADER)
            await _show(heard, show_reading, count)

    if not is_live:  # the view shows the state of the ports
        show_warnings("tracer_async")
    run_async(follow)


async def _show(items: AsyncIterator[T], show: Callable[[T], None], count: int | None) -> None:
    shown = 0
    async for item in items:
        show(item)
        shown += 1
        if shown == count:
            return


def _words(frame: Frame | None, sender: str, missing: str) -> str:
    if frame is None:
        return missing
    meaning = meaning_of(CapturedEvent(0, sender, frame))
    return f"{meaning.kind}: {meaning.words}" if meaning.words else meaning.kind


def _to_text(exchange: ObservedExchange) -> str:
    delay = "" if exchange.delay is None else f" after {1000 * exchange.delay:.0f} ms"
    request = _words(exchange.request, "client", "unknown request")
    reply = _words(exchange.reply, "controller", "damaged reply" if exchange.damaged else "no reply")
    return f"{local(exchange.time, ' ')} {request} | {reply}{delay}"


def _to_json(exchange: ObservedExchange) -> str:
    record: dict[str, Any] = {"time": utc(exchange.time), "delay": exchange.delay}
    if exchange.delay is not None:
        record["delay"] = round(exchange.delay, 6)
    for name, sender, frame in (("request", "client", exchange.request), ("reply", "controller", exchange.reply)):
        record[name] = None
        if frame is not None:
            meaning = meaning_of(CapturedEvent(0, sender, frame))
            hexadecimal = frame.encode(start_up=False).hex()
            record[name] = {"kind": meaning.kind, "values": dict(meaning.values), "frame": hexadecimal}
    return json.dumps(record)
