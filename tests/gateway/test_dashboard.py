"""The dashboard in a real browser, in front of the real hub, history and simulated controllers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Locator, Page, expect
from pydantic import SecretStr

from tests.conftest import entered_in_one_task
from tests.gateway.browser import Watch, chromium, opened
from tests.gateway.dashboard_site import Dashboard, Device, dashboard
from tests.gateway.web_site import READ, SWITCH, with_tokens
from tracer_async import LoadMode
from tracer_async.gateway._clock import uptime

pytestmark = pytest.mark.slow

expect.set_options(timeout=20_000)

DASH = "\N{EN DASH}"
HOSTILE = """<img src=x onerror="document.title='owned'"><script>alert(1)</script>'"&amp;\n\u202e"""


@pytest.fixture
async def browser(require: Callable[[str], str]) -> AsyncIterator[Browser]:
    async with entered_in_one_task(chromium(require)) as browser:
        yield browser


def three() -> dict[str, Device]:
    return {"roof": Device("House roof", 1), "barn": Device("Barn", 2, 0.9), "boat": Device("Boat", 3, 0.3)}


@asynccontextmanager
async def shown(
    browser: Browser,
    directory: Path,
    devices: dict[str, Device] | None = None,
    *,
    page: dict[str, Any] | None = None,
    **web: Any,
) -> AsyncIterator[tuple[Dashboard, Page, Watch]]:
    async with (
        dashboard(directory, devices or {"roof": Device("House roof")}, **web) as site,
        opened(browser, site.url, **(page or {})) as (opened_page, watch),
    ):
        yield site, opened_page, watch


def card(page: Page, title: str = "House roof") -> Locator:
    return page.locator("article").filter(has=page.get_by_role("heading", name=title, exact=True))


def value(of: Locator, label: str) -> Locator:
    return of.locator("dl > div").filter(has=of.page.get_by_text(label, exact=True)).locator("dd")


def silence(device: Device) -> None:
    device.tracer.mute = True


# The first screen


async def test_the_first_screen_of_a_phone_shows_three_controllers(browser: Browser, tmp_path: Path) -> None:
    async with shown(browser, tmp_path, three()) as (site, page, _):
        for name, title in (("roof", "House roof"), ("barn", "Barn"), ("boat", "Boat")):
            shows = card(page, title)
            await expect(shows).to_contain_text("s ago")
            measured = site.devices[name].tracer.realtime()
            volts = await value(shows, "Battery").inner_text()
            assert float(volts.removesuffix(" V")) == pytest.approx(measured.battery_voltage, abs=0.3)
            watts = await value(shows, "Charging").inner_text()
            assert float(watts.removesuffix(" W")) == pytest.approx(measured.charge_power, rel=0.2, abs=5)
            watts = await value(shows, "Load").inner_text()
            assert float(watts.removesuffix(" W")) == pytest.approx(measured.load_power, rel=0.2, abs=5)
            await expect(value(shows, "Charged today")).to_have_text(re.compile(r"^\d+ Wh$"))
            await expect(value(shows, "Used today")).to_have_text(re.compile(r"^\d+ Wh$"))
            await expect(shows.get_by_role("list", name="State")).to_have_text(
                re.compile("Charging|Battery full|Not charging")
            )
            await expect(shows).to_contain_text(f"Load {'on' if measured.load_on else 'off'}")
            box = await shows.bounding_box()
            assert box is not None
            assert box["y"] + box["height"] <= 740, title


async def test_the_age_of_a_reading_counts(browser: Browser, tmp_path: Path) -> None:
    async with shown(browser, tmp_path, {"roof": Device("House roof", interval=30)}) as (_, page, _):
        freshness = card(page).locator(".freshness")
        for age in ("1 s ago", "2 s ago", "4 s ago"):
            await expect(freshness).to_have_text(age)


async def test_an_offline_controller_shows_since_when_and_why_and_no_values(browser: Browser, tmp_path: Path) -> None:
    async with shown(browser, tmp_path) as (site, page, _):
        shows = card(page)
        await expect(shows).to_contain_text("s ago")
        silence(site.devices["roof"])
        await expect(shows.locator(".freshness")).to_have_text(re.compile(r"^offline since \d\d:\d\d: no answer$"))
        await expect(shows.get_by_role("list", name="State")).to_have_text("Offline")
        for label in ("Battery", "Charging", "Load", "Battery temp."):
            await expect(value(shows, label)).to_have_text(DASH)
        await expect(shows).to_contain_text("Load unknown")
        await expect(shows.get_by_role("button")).to_be_disabled()
        site.devices["roof"].tracer.mute = False
        await expect(shows.locator(".freshness")).to_have_text(re.compile(r"^\d s ago$"))
        await expect(value(shows, "Battery")).to_have_text(re.compile(r"^\d+\.\d\d V$"))


async def test_times_follow_the_browsers_locale(browser: Browser, tmp_path: Path) -> None:
    async with shown(browser, tmp_path, page={"locale": "en-US"}) as (site, page, _):
        silence(site.devices["roof"])
        await expect(card(page).locator(".freshness")).to_have_text(re.compile(r"offline since \d\d:\d\d\s(AM|PM): "))


async def test_faults_are_shown_in_words(browser: Browser, tmp_path: Path) -> None:
    device = Device("House roof", state_of_charge=0.6)
    async with shown(browser, tmp_path, {"roof": device}) as (_, page, _):
        await expect(card(page)).to_contain_text("s ago")
        device.tracer.state_of_charge = 0.0
        await expect(card(page).get_by_role("list", name="State")).to_contain_text("Battery too low, load cut off")


# The gateway goes away, sleep, and clocks


async def test_without_the_gateway_nothing_is_shown_as_current(browser: Browser, tmp_path: Path) -> None:
    async with shown(browser, tmp_path, three()) as (site, page, watch):
        await expect(card(page)).to_contain_text("s ago")
        await expect(value(card(page), "Charged today")).to_have_text(re.compile("Wh"))
        watch.gateway_is_away = True
        await site.stop_web()
        await expect(page.get_by_role("status").first).to_have_text(
            re.compile(r"No connection to the gateway since \d\d:\d\d\. Trying again\.")
        )
        for text in await page.locator("dd").all_inner_texts():
            assert text == DASH
        for shows in await page.locator("article").all():
            await expect(shows).to_contain_text("no connection to the gateway")
            await expect(shows.get_by_role("button")).to_be_disabled()
        # Meanwhile a controller goes and another one gets a new name.
        await site.hub.remove("boat")
        await site.hub.apply(
            {
                "roof": site.configs["roof"].model_copy(update={"title": "New roof"}),
                "barn": site.configs["barn"],
            }
        )
        await site.start_web()
        await expect(page.locator("#connection")).to_be_hidden()
        await expect(card(page, "New roof")).to_contain_text("s ago")
        await expect(page.locator("article")).to_have_count(2)


async def test_a_controller_that_is_added_or_removed_appears_or_disappears(browser: Browser, tmp_path: Path) -> None:
    async with shown(browser, tmp_path) as (site, page, _):
        await expect(card(page)).to_contain_text("s ago")
        site.hub.add("new", site.configs["roof"].model_copy(update={"title": "New one"}))
        await expect(card(page, "New one")).to_contain_text("s ago")
        await site.hub.remove("new")
        await expect(page.locator("article")).to_have_count(1)


SLEEP = "(ms) => { const now = Date.now.bind(Date); const late = ms; Date.now = () => now() + late; }"


@pytest.mark.parametrize("jump", [3_600_000, -3_600_000])
async def test_after_sleep_or_a_change_of_the_clock_nothing_looks_newer_than_it_is(
    jump: int, browser: Browser, tmp_path: Path
) -> None:
    async with shown(browser, tmp_path, {"roof": Device("House roof", interval=8)}) as (site, page, _):
        freshness = card(page).locator(".freshness")

        async def check_until(age: int) -> None:
            """Compare what is shown with what the hub knows, until *age* is shown."""
            shown_age = -1
            while shown_age != age:
                text = await freshness.inner_text()
                latest = site.hub.latest("roof")
                assert latest is not None
                real_age = uptime() - latest.monotonic
                match = re.fullmatch(r"(\d+) s ago", text)
                shown_age = int(match[1]) if match else -1
                assert match is None or shown_age >= real_age - 2
                await asyncio.sleep(0.05)

        await expect(freshness).to_have_text("1 s ago")
        # performance.now() goes on as if nothing had happened: it stands still while a computer sleeps.
        await page.evaluate(SLEEP, jump)
        async with asyncio.timeout(30):
            for age in (5, 0, 3):
                await check_until(age)
        await expect(value(card(page), "Battery")).to_have_text(re.compile("V"))


@pytest.mark.parametrize("clock", ["performance", "Date"])
async def test_the_age_counts_although_one_of_the_two_clocks_stands_still(
    clock: str, browser: Browser, tmp_path: Path
) -> None:
    async with shown(browser, tmp_path, {"roof": Device("House roof", interval=30)}) as (_, page, _):
        freshness = card(page).locator(".freshness")
        await expect(freshness).to_have_text(re.compile(r"^\d+ s ago$"))
        await page.evaluate(f"() => {{ const still = {clock}.now(); {clock}.now = () => still; }}")
        before = int((await freshness.inner_text()).split()[0])
        later = "|".join(str(before + seconds) for seconds in range(3, 20))
        await expect(freshness).to_have_text(re.compile(f"^({later}) s ago$"))


class Forwarder:
    """A TCP port in front of the gateway, on which everything can stop without an end of the connection."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.open = asyncio.Event()
        self.open.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with suppress(asyncio.CancelledError):
            await self.open.wait()
        target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            await asyncio.gather(self._copy(reader, target_writer), self._copy(target_reader, writer))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            target_writer.close()
            writer.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self.open.wait()
            writer.write(data)
        writer.write_eof()

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def test_a_connection_that_is_silently_dead_is_noticed(browser: Browser, tmp_path: Path) -> None:
    async with dashboard(tmp_path, {"roof": Device("House roof", interval=600)}) as site:
        forwarder = Forwarder(int(site.url.rpartition(":")[2].strip("/")))
        server = await asyncio.start_server(forwarder.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with opened(browser, "about:blank") as (page, watch):
            watch.origin = f"http://127.0.0.1:{port}/"
            watch.gateway_is_away = True
            await page.clock.install()
            await page.goto(watch.origin)
            await expect(card(page)).to_contain_text("s ago")
            forwarder.open.clear()
            await page.clock.fast_forward(30_000)
            await expect(card(page).locator(".freshness")).to_have_text(re.compile(r"^3\d s ago$"))
            await page.clock.fast_forward(15_000)
            await expect(page.locator("#connection")).to_be_visible()
            await expect(value(card(page), "Battery")).to_have_text(DASH)
            forwarder.open.set()
            await expect(page.locator("#connection")).to_be_hidden()
            await expect(value(card(page), "Battery")).to_have_text(re.compile("V"))
        server.close()
        await forwarder.end()


# The load switch


async def test_a_click_on_the_switch_asks_and_then_reaches_the_controller(browser: Browser, tmp_path: Path) -> None:
    async with shown(browser, tmp_path) as (site, page, _):
        tracer, shows, dialog = site.devices["roof"].tracer, card(page), page.get_by_role("dialog")
        button = shows.get_by_role("button", name="Switch off the load of House roof")
        await button.click()
        await expect(dialog).to_contain_text("Switch off the load of House roof?")
        await dialog.get_by_role("button", name="Cancel").click()
        await expect(dialog).to_be_hidden()
        await button.click()
        await page.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()
        await expect(shows).to_contain_text("Load on")
        assert tracer.realtime().load_on
        assert not any(frame.command == 0xAA for frame in tracer.requests)
        await button.click()
        await dialog.get_by_role("button", name="Switch off").click()
        await expect(shows).to_contain_text("Load off")
        assert not tracer.realtime().load_on
        await expect(page.locator("#announcement")).to_have_text(
            "House roof: the controller confirms that the load is off."
        )
        await shows.get_by_role("button", name="Switch on the load of House roof").click()
        await dialog.get_by_role("button", name="Switch on").click()
        await expect(shows).to_contain_text("Load on")
        assert tracer.realtime().load_on


async def test_a_load_that_somebody_else_switches_is_shown(browser: Browser, tmp_path: Path) -> None:
    async with shown(browser, tmp_path) as (site, page, _):
        await expect(card(page)).to_contain_text("Load on")
        # Somebody else switches at the device itself.
        site.devices["roof"].tracer.switch_load(on=False)
        await expect(card(page)).to_contain_text("Load off")


async def switch_off(page: Page) -> None:
    await card(page).get_by_role("button", name="Switch off the load of House roof").click()
    await page.get_by_role("dialog").get_by_role("button", name="Switch off").click()


async def test_a_refusal_is_shown_with_its_reason(browser: Browser, tmp_path: Path) -> None:
    async with shown(browser, tmp_path) as (site, page, watch):
        shows, tracer = card(page), site.devices["roof"].tracer
        await expect(shows).to_contain_text("Load on")
        tracer.settings = replace(tracer.settings, load_mode_1=LoadMode.TEST)  # in it the load is always on
        watch.gateway_is_away = True  # the browser notes the status 409 on the console
        await switch_off(page)
        await expect(shows).to_contain_text(
            "Not switched: the controller leaves the load on: is its load mode 1 manual?"
        )
        await expect(shows).to_contain_text("Load on")


UNKNOWN = "It is unknown whether the load was switched. The next reading shows it."


async def test_a_switch_without_an_answer_is_shown_as_unknown_until_the_next_reading(
    browser: Browser, tmp_path: Path
) -> None:
    """The controller switches its load, and answers neither that command nor a request after it."""
    async with shown(browser, tmp_path) as (site, page, watch):
        tracer, shows = site.devices["roof"].tracer, card(page)
        tracer.mute_after = 0xAA
        watch.gateway_is_away = True  # the browser notes the status 502 on the console
        await switch_off(page)
        await expect(shows).to_contain_text(UNKNOWN)
        await expect(shows).to_contain_text("Load unknown")
        await expect(shows).not_to_contain_text("Not switched")
        await expect(page.locator("#announcement")).to_have_text(f"House roof: {UNKNOWN}")
        assert not tracer.realtime().load_on
        # An error is not a reading.
        await expect(shows).to_contain_text("offline since")
        await expect(shows).to_contain_text(UNKNOWN)
        tracer.mute_after, tracer.mute = None, False
        await expect(shows).to_contain_text("Load off")
        await expect(shows).not_to_contain_text(UNKNOWN)


async def test_an_unknown_switch_stays_unknown_while_there_is_no_reading(browser: Browser, tmp_path: Path) -> None:
    """The reading that the page has is of the time before the switch, however often it is sent again."""
    async with shown(browser, tmp_path, {"roof": Device("House roof", interval=600)}) as (site, page, watch):
        shows = card(page)
        await expect(shows).to_contain_text("Load on")
        await page.clock.install()
        watch.gateway_is_away = True
        await page.route("**/load", lambda route: route.abort())
        await switch_off(page)
        await expect(shows).to_contain_text(UNKNOWN)
        await expect(shows).to_contain_text("Load unknown")
        await page.clock.fast_forward(70_000)
        await site.stop_web()
        await expect(page.locator("#connection")).to_be_visible()
        await site.start_web()
        async with page.expect_response("**/api/controllers"):
            await page.clock.fast_forward(10_000)
        await expect(page.locator("#connection")).to_be_hidden()
        await expect(shows).to_contain_text(UNKNOWN)


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (502, '{"error": "no answer", "code": "not_switched"}', "Not switched: no answer"),
        (502, '{"error": "no answer", "code": "unknown"}', UNKNOWN),
        (403, '{"error": "switching the load needs the switching token"}', "Not switched: switching the load needs"),
        (500, '{"error": "internal error"}', UNKNOWN),
        (504, "<html>", UNKNOWN),  # of a proxy
        (200, "", UNKNOWN),
    ],
)
async def test_only_what_certainly_did_not_happen_is_shown_as_not_switched(
    status: int, body: str, text: str, browser: Browser, tmp_path: Path
) -> None:
    async with shown(browser, tmp_path, {"roof": Device("House roof", interval=600)}) as (_, page, watch):
        watch.gateway_is_away = True
        await page.route("**/load", lambda route: route.fulfill(status=status, body=body))
        await switch_off(page)
        await expect(card(page).locator(".problem")).to_contain_text(text)


# Log-in


async def test_log_in_with_a_wrong_and_a_right_token_and_log_out(browser: Browser, tmp_path: Path) -> None:
    async with shown(browser, tmp_path, **with_tokens()) as (_, page, watch):
        field = page.get_by_label("Token from the gateway's configuration")
        await expect(field).to_be_focused()
        assert "House roof" not in await page.content()
        watch.gateway_is_away = True  # the browser notes the status 401 on the console
        await field.fill("wrong token")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_have_text("Not logged in: wrong token.")
        watch.gateway_is_away = False
        await field.fill(READ)
        await page.get_by_role("button", name="Log in").click()
        await expect(card(page)).to_contain_text("s ago")
        await expect(card(page).get_by_role("button")).to_have_count(0)
        await page.reload()
        await expect(card(page)).to_contain_text("s ago")
        # The reading token does not switch. The switching token can be entered, or not.
        await page.get_by_role("link", name="log in with the switching token").click()
        await page.get_by_role("link", name="Back").click()
        await page.get_by_role("link", name="log in with the switching token").click()
        await field.fill(SWITCH)
        await page.keyboard.press("Enter")
        await card(page).get_by_role("button").click()
        await page.get_by_role("dialog").get_by_role("button", name="Switch off").click()
        await expect(card(page)).to_contain_text("Load off")
        await page.get_by_role("button", name="Log out").click()
        await expect(field).to_be_focused()
        await expect(page.locator("article")).to_have_count(0)
        assert await page.evaluate("document.cookie") == ""


async def test_a_session_that_ends_leads_to_the_log_in(browser: Browser, tmp_path: Path) -> None:
    async with shown(browser, tmp_path, **with_tokens()) as (site, page, watch):
        field = page.get_by_label("Token from the gateway's configuration")
        await field.fill(READ)
        await page.keyboard.press("Enter")
        await expect(card(page)).to_contain_text("s ago")
        watch.gateway_is_away = True
        await site.stop_web()
        site.config = site.config.model_copy(update={"token": SecretStr("another token")})
        await site.start_web()
        await expect(field).to_be_visible()
        await expect(page.locator("article")).to_have_count(0)


# The page of a controller


async def with_past(page: Page, site: Dashboard) -> None:
    await page.goto(f"{site.url}#/roof")
    await expect(page.locator("svg.chart")).to_have_count(4)


def panel(page: Page, title: str) -> Locator:
    return page.locator("section.panel").filter(has=page.get_by_role("heading", name=re.compile(f"^{title}")))


async def test_the_charts_show_values_to_mouse_touch_and_keyboard(browser: Browser, tmp_path: Path) -> None:
    devices = {"roof": Device("House roof", past_days=2)}
    async with shown(browser, tmp_path, devices, page={"has_touch": True}) as (_, page, _):
        await page.get_by_role("link", name="House roof").click()
        await expect(page.locator("svg.chart")).to_have_count(4)
        assert await page.title() == "House roof"
        power = panel(page, "Power")
        values, chart = power.locator(".values-at"), power.get_by_label("Chart: Power")
        shown_values = re.compile(r"^(.*, )?\d\d:\d\d: Charging \d+ W.*, Load \d+ W")
        await expect(values).to_have_text(shown_values)
        await chart.scroll_into_view_if_needed()
        box = await chart.bounding_box()
        assert box is not None
        seen = [await values.inner_text()]

        async def changed() -> None:
            await expect(values).not_to_have_text(seen[-1])
            await expect(values).to_have_text(shown_values)
            seen.append(await values.inner_text())

        await page.mouse.move(box["x"] + 80, box["y"] + 60)
        await changed()
        await page.mouse.move(box["x"] + 200, box["y"] + 60)
        await changed()
        await page.touchscreen.tap(box["x"] + 120, box["y"] + 60)
        await changed()
        await chart.focus()
        for key in ("ArrowLeft", "ArrowRight", "Home", "End"):
            await page.keyboard.press(key)
            await changed()
        assert seen[2] != seen[4]
        assert seen[3] == seen[5]
        # The values as a table are what the chart shows.
        await power.get_by_text("Values as a table").click()
        await expect(power.locator("tbody tr").first).to_be_visible()
        rows = await power.locator("tbody tr").count()
        assert 350 <= rows <= 362
        bars = panel(page, "Energy by day")
        assert await bars.locator("rect.bar").count() == 2 * 3
        await bars.get_by_label("Chart: Energy by day").focus()
        await page.keyboard.press("Home")
        await expect(bars.locator(".values-at")).to_have_text(
            re.compile(r"^\d+ \w+: Charged \d\.\d\d kWh, Used \d\.\d\d kWh$")
        )


async def test_the_ranges_are_six_hours_day_week_and_month(browser: Browser, tmp_path: Path) -> None:
    async with shown(browser, tmp_path, {"roof": Device("House roof", past_days=2)}) as (site, page, _):
        asked: list[float] = []

        def note(url: str) -> None:
            if found := re.search(r"history\?from=(\d+)&to=(\d+)", url):
                asked.append((int(found[2]) - int(found[1])) / 3600)

        page.on("request", lambda request: note(request.url))
        await with_past(page, site)
        for label in ("Day", "Week", "Month", "6 hours"):
            button = page.get_by_role("button", name=label, exact=True)
            await button.click()
            await expect(button).to_have_attribute("aria-pressed", "true")
            await expect(page.locator("button[aria-pressed=true]")).to_have_count(1)
            await expect(page.locator("svg.chart")).to_have_count(4)
        assert asked == [6, 24, 168, 720, 6]


async def test_over_more_than_a_day_each_time_has_its_date(browser: Browser, tmp_path: Path) -> None:
    async with shown(browser, tmp_path, {"roof": Device("House roof", past_days=2)}) as (site, page, _):
        await with_past(page, site)
        power = panel(page, "Power")
        for label in ("Week", "Month"):
            async with page.expect_response("**/history?*"):
                await page.get_by_role("button", name=label, exact=True).click()
            await expect(power.locator(".values-at")).to_have_text(re.compile(r"^\d+ \w+, \d\d:\d\d: Charging"))
            await power.get_by_text("Values as a table").click()
            times = power.locator("tbody td:first-child")
            await expect(times.last).to_have_text(re.compile(r"^\d+ \w+, \d\d:\d\d$"))
            assert all(re.fullmatch(r"\d+ \w+, \d\d:\d\d", text) for text in await times.all_inner_texts())


async def test_without_readings_or_without_a_database_the_page_says_so(browser: Browser, tmp_path: Path) -> None:
    async with shown(browser, tmp_path, {"roof": Device("House roof", mute=True)}) as (site, page, watch):
        await page.goto(f"{site.url}#/roof")
        await expect(page.get_by_text("No readings in this time.")).to_be_visible()
        assert site.history is not None

        async def fail(*_: object) -> None:
            raise OSError("disk I/O error")

        watch.gateway_is_away = True  # the browser notes the status 503 on the console
        site.history.series = fail  # type: ignore[assignment,method-assign]
        await page.get_by_role("button", name="Day", exact=True).click()
        await expect(page.get_by_text("No history: the database does not answer.")).to_be_visible()
        await expect(card(page)).to_contain_text("offline since")


async def test_without_a_history_the_page_has_none(browser: Browser, tmp_path: Path) -> None:
    async with shown(browser, tmp_path, with_history=False) as (site, page, _):
        await page.goto(f"{site.url}#/roof")
        await expect(card(page)).to_contain_text("s ago")
        await expect(page.get_by_role("heading", name="History")).to_have_count(0)


async def test_an_address_of_no_controller_leads_to_the_overview(browser: Browser, tmp_path: Path) -> None:
    async with shown(browser, tmp_path) as (site, page, _):
        for place in ("#/nobody", "#/%", "#/<script>", "#content"):
            await page.goto(f"{site.url}{place}")
            await expect(page.get_by_role("alert")).to_have_text("There is no such controller.")
            await expect(card(page)).to_contain_text("s ago")


# Everybody can use it


async def test_everything_can_be_reached_and_used_with_the_keyboard(browser: Browser, tmp_path: Path) -> None:
    async with shown(browser, tmp_path, {"roof": Device("House roof", past_days=1)}) as (site, page, _):
        await expect(card(page)).to_contain_text("s ago")

        async def tab() -> str:
            await page.keyboard.press("Tab")
            focused = page.locator(":focus")
            outline = await focused.evaluate("node => getComputedStyle(node).outlineStyle")
            assert outline != "none"
            return await focused.get_attribute("aria-label") or await focused.inner_text()

        assert [await tab() for _ in range(4)] == [
            "Skip to content",
            "Solar controllers",
            "House roof",
            "Switch off the load of House roof",
        ]
        await page.keyboard.press("Enter")
        # The question is answered with "Cancel" unless somebody chooses otherwise.
        await expect(page.get_by_role("button", name="Cancel")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("dialog")).to_be_hidden()
        await expect(page.get_by_role("button", name="Switch off the load of House roof")).to_be_focused()
        await page.keyboard.press("Space")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await expect(card(page)).to_contain_text("Load off")
        await expect(page.get_by_role("button", name="Switch on the load of House roof")).to_be_focused()
        await page.keyboard.press("Shift+Tab")
        await page.keyboard.press("Enter")
        await expect(page.locator("svg.chart")).to_have_count(4)
        await expect(page.locator("main")).to_be_focused()
        reached = [await tab() for _ in range(8)]
        assert reached[:6] == ["All controllers", "Switch on the load of House roof", "6 hours", "Day", "Week", "Month"]
        assert reached[6].startswith("Chart: Power")
        assert reached[7] == "Values as a table"
        assert not site.devices["roof"].tracer.realtime().load_on


async def test_the_skip_link_leads_to_the_content_of_the_same_page(browser: Browser, tmp_path: Path) -> None:
    async with shown(browser, tmp_path) as (site, page, _):
        await page.goto(f"{site.url}#/roof")
        await expect(page.get_by_role("heading", level=1, name="House roof")).to_be_visible()
        await page.get_by_role("link", name="Skip to content").focus()
        await page.keyboard.press("Enter")
        await expect(page.locator("main")).to_be_focused()
        await expect(page.get_by_role("heading", level=1, name="House roof")).to_be_visible()


async def test_a_hostile_title_is_text(browser: Browser, tmp_path: Path) -> None:
    async with shown(browser, tmp_path, {"roof": Device(HOSTILE)}) as (site, page, _):
        await expect(page.locator("article")).to_contain_text("s ago")
        assert await page.locator("article h2").evaluate("node => node.textContent") == HOSTILE
        await page.get_by_role("button", name="Switch off").click()
        await expect(page.get_by_role("dialog")).to_contain_text("<script>alert(1)</script>")
        await page.get_by_role("dialog").get_by_role("button", name="Switch off").click()
        await expect(page.locator("article")).to_contain_text("Load off")
        await page.goto(f"{site.url}#/roof")
        await expect(page.get_by_role("heading", level=1)).to_contain_text("<img")
        assert await page.locator("main img, main script").count() == 0
        assert await page.evaluate("document.title") != "owned"


@pytest.mark.parametrize("width", [320, 360, 1280])
async def test_nothing_is_wider_than_the_screen(width: int, browser: Browser, tmp_path: Path) -> None:
    devices = {"roof": Device("House roof", past_days=1), "long": Device("x" * 100), "many": Device("many words " * 9)}
    async with shown(browser, tmp_path, devices, page={"width": width}) as (site, page, _):
        await expect(card(page)).to_contain_text("s ago")

        async def fits() -> None:
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
            assert await page.evaluate("document.body.scrollWidth") <= width

        await fits()
        silence(devices["roof"])
        await expect(card(page)).to_contain_text("offline since")
        await fits()
        await page.get_by_role("button", name="Switch off the load of many").click()
        await fits()
        await page.keyboard.press("Escape")
        for name in ("roof", "long"):
            await page.goto(f"{site.url}#/{name}")
            await expect(page.get_by_role("heading", level=1)).to_be_visible()
            await fits()
        await with_past(page, site)
        # Its times have dates, which make the table wider. Those of the last hours have them only after midnight.
        async with page.expect_response("**/history?*"):
            await page.get_by_role("button", name="Week", exact=True).click()
        await panel(page, "Power").get_by_text("Values as a table").click()
        await fits()


async def accessible(page: Page) -> None:
    found = await Axe().run(page, options={"resultTypes": ["violations"]})
    violations = [
        (each["id"], each["impact"], [node["html"] for node in each["nodes"]]) for each in found.response["violations"]
    ]
    assert violations == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
async def test_axe_finds_nothing(scheme: str, width: int, browser: Browser, tmp_path: Path) -> None:
    devices = {**three(), "roof": Device("House roof", past_days=2)}
    look = {"color_scheme": scheme, "width": width}
    async with shown(browser, tmp_path, devices, page=look) as (site, page, watch):
        await expect(card(page)).to_contain_text("s ago")
        silence(devices["boat"])
        devices["barn"].tracer.state_of_charge = 0.0
        await expect(card(page, "Boat")).to_contain_text("offline since")
        await expect(card(page, "Barn")).to_contain_text("Battery too low")
        await accessible(page)
        await card(page).get_by_role("button").click()
        await expect(page.get_by_role("dialog")).to_be_visible()
        await accessible(page)
        await page.keyboard.press("Escape")
        await with_past(page, site)
        await accessible(page)
        await panel(page, "Power").get_by_text("Values as a table").click()
        await page.get_by_label("Chart: Energy by day").hover()
        await accessible(page)
        await page.goto(f"{site.url}#/nobody")
        await expect(page.get_by_role("alert")).to_be_visible()
        await accessible(page)
        watch.gateway_is_away = True
        await site.stop_web()
        await expect(page.locator("#connection")).to_be_visible()
        await accessible(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_on_the_log_in(scheme: str, browser: Browser, tmp_path: Path) -> None:
    look = {"color_scheme": scheme}
    async with shown(browser, tmp_path, page=look, **with_tokens()) as (_, page, watch):
        field = page.get_by_label("Token from the gateway's configuration")
        await expect(field).to_be_focused()
        await accessible(page)
        watch.gateway_is_away = True
        await field.fill("wrong token")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_have_text("Not logged in: wrong token.")
        await accessible(page)
        await field.fill(READ)
        await page.keyboard.press("Enter")
        await expect(card(page)).to_contain_text("s ago")
        await accessible(page)
