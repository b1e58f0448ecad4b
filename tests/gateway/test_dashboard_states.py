"""The dashboard in a real browser, in front of a hub whose states and switches a test decides."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from playwright.async_api import Browser, Locator, Page, Response, Route, expect
from pydantic import SecretStr

from tests.conftest import entered_in_one_task
from tests.gateway.browser import chromium, opened
from tests.gateway.stub_hub import StubHub, controller, data, event
from tests.gateway.web_site import READ, SWITCH, Site, StubHistory, site, with_tokens
from tracer_async import LoadRefusedError, LoadState, LoadUnknownError
from tracer_async.gateway.history.query import Point, Series

pytestmark = pytest.mark.slow

expect.set_options(timeout=20_000)

DASH = "\N{EN DASH}"
UNKNOWN = "It is unknown whether the load was switched. The next reading shows it."
LONG_AGO = 1_700_000_000.0  # 14 November 2023, 22:13:20 in UTC


@pytest.fixture
async def browser(require: Callable[[str], str]) -> AsyncIterator[Browser]:
    async with entered_in_one_task(chromium(require)) as browser:
        yield browser


class SwitchingHub(StubHub):
    """A hub with the controller ``roof``. A switch waits for `go`, and ends with `error` if there is one."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(controller(title="House roof", interval=600))
        self.put(event(self.controllers[0], data(load_on=True)))
        self.error = error
        self.asked = asyncio.Event()
        self.go = asyncio.Event()

    async def set_load(self, name: str, on: bool, *, within: float) -> LoadState:
        self.asked.set()
        await self.go.wait()
        if self.error is not None:
            raise self.error
        if self.controllers:
            self.put(event(self.controllers[0], data(load_on=on)))
        return await super().set_load(name, on, within=within)


class MonthOfHistory(StubHistory):
    """A history with a point an hour."""

    async def series(self, controller_id: str, start: float, end: float, step: float | None = None) -> Series:
        self.asked.append((controller_id, start, end, step))
        times = range(int(start), int(end), 3600)
        value = (1.0, 2.0, 3.0)
        return Series(3600.0, [Point(float(each), value, value, value, value, value) for each in times])


def publish(served: Site, *, load_on: bool) -> None:
    """Let the controller ``roof`` have a new reading."""
    new = event(served.hub.controllers[0], data(load_on=load_on))
    served.hub.put(new)
    served.output.publish(new)


def card(page: Page) -> Locator:
    return page.locator("article")


async def overview(page: Page) -> None:
    await page.get_by_role("link", name="All controllers").click()
    await expect(page.get_by_role("link", name="House roof")).to_be_visible()


# The age of a reading


async def test_a_reading_of_unknown_age_shows_when_it_came_and_no_age(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that hears only the controller's replies knows no age. See docs/listening.md."""
    # A message with the real time would show that the clock of the page was changed.
    monkeypatch.setattr("tracer_async.gateway.web.streams._KEEP_ALIVE", 600.0)
    roof = controller(title="House roof")
    hub = StubHub(roof)
    hub.put(event(roof, data(battery_voltage=12.34), at=LONG_AGO, age=math.inf))
    async with site(hub) as served, opened(browser, "about:blank") as (page, watch):
        watch.origin = served.url
        await page.clock.install()
        await page.goto(served.url)
        freshness = card(page).locator(".freshness")
        for seconds in (0, 12):
            await page.clock.fast_forward(seconds * 1000)
            await expect(freshness).to_have_text("read at 14 Nov, 22:13, age unknown")
            await expect(card(page)).to_contain_text("12.34 V")
            await expect(card(page)).not_to_have_class(re.compile("offline"))
        # It is current for 15 s, as a reading with a known age.
        await page.clock.fast_forward(8_000)
        await expect(freshness).to_have_text(re.compile(r"^no reading for 2\d s$"))
        await expect(card(page)).to_have_class(re.compile("offline"))
        await expect(card(page).locator("dd").first).to_have_text(DASH)


async def test_a_reading_of_unknown_age_is_followed_by_one_with_an_age(browser: Browser) -> None:
    roof = controller(title="House roof", interval=600)
    hub = StubHub(roof)
    hub.put(event(roof, data(), age=math.inf))
    async with site(hub) as served, opened(browser, served.url) as (page, _):
        freshness = card(page).locator(".freshness")
        await expect(freshness).to_have_text(re.compile(r"^read at \d\d:\d\d, age unknown$"))
        publish(served, load_on=True)
        await expect(freshness).to_have_text(re.compile(r"^\d s ago$"))


# A switch that ends while another page is shown


# Counts the states that the page has received.
COUNTING = """
    window.states = 0;
    window.EventSource = class extends EventSource {
      constructor(address) {
        super(address);
        this.addEventListener("controller", () => setTimeout(() => { window.states += 1; }));
      }
    };
"""


@asynccontextmanager
async def switching(browser: Browser, error: Exception | None) -> AsyncIterator[tuple[Site, Page]]:
    """The overview, on which somebody has begun to switch the load off."""
    hub = SwitchingHub(error)
    async with site(hub) as served, opened(browser, "about:blank") as (page, watch):
        watch.origin = served.url
        watch.gateway_is_away = True  # the browser notes a status such as 502 on the console
        await page.add_init_script(COUNTING)
        await page.goto(served.url)
        await card(page).get_by_role("button", name="Switch off").click()
        await page.get_by_role("dialog").get_by_role("button", name="Switch off").click()
        async with asyncio.timeout(20):
            await hub.asked.wait()
        yield served, page


def of(served: Site) -> SwitchingHub:
    assert isinstance(served.hub, SwitchingHub)
    return served.hub


async def test_a_switch_that_ends_as_unknown_on_another_page_is_shown_as_unknown(browser: Browser) -> None:
    async with switching(browser, LoadUnknownError("sim:", False)) as (served, page):
        await page.get_by_role("link", name="House roof").click()
        await expect(page.get_by_role("heading", level=1, name="House roof")).to_be_visible()
        await expect(card(page)).to_contain_text("Switching")
        await expect(card(page).get_by_role("button")).to_be_disabled()
        of(served).go.set()
        for leave in (page.get_by_role("link", name="All controllers"), page.get_by_role("link", name="House roof")):
            await expect(card(page).locator(".problem")).to_have_text(UNKNOWN)
            await expect(card(page)).to_contain_text("Load unknown")
            await leave.click()
        publish(served, load_on=False)
        await expect(card(page)).to_contain_text("Load off")
        await expect(card(page).locator(".problem")).to_have_text("")


async def test_a_switch_that_is_refused_on_another_page_is_shown_as_not_switched(browser: Browser) -> None:
    async with switching(browser, LoadRefusedError("sim:", False, data(load_on=True))) as (served, page):
        await page.get_by_role("link", name="House roof").click()
        await expect(card(page)).to_contain_text("Switching")
        of(served).go.set()
        refused = "Not switched: the controller leaves the load on: is its load mode 1 manual?"
        await expect(card(page).locator(".problem")).to_have_text(refused)
        await expect(card(page)).to_contain_text("Load on")
        await overview(page)
        await expect(card(page).locator(".problem")).to_have_text(refused)


async def test_a_switch_that_is_confirmed_on_another_page_is_shown_there(browser: Browser) -> None:
    async with switching(browser, None) as (served, page):
        await page.get_by_role("link", name="House roof").click()
        await expect(card(page)).to_contain_text("Switching")
        of(served).go.set()
        await expect(card(page)).to_contain_text("Load off")
        await expect(card(page).get_by_role("button", name="Switch on")).to_be_enabled()
        await overview(page)
        await expect(card(page)).to_contain_text("Load off")


async def test_a_reading_that_came_before_a_switch_has_ended_does_not_show_its_result(browser: Browser) -> None:
    """It came while the page showed no controller."""
    async with switching(browser, LoadUnknownError("sim:", False)) as (served, page):
        await page.evaluate("location.hash = '#/log-in'")
        await expect(card(page)).to_have_count(0)
        received = await page.evaluate("window.states")
        publish(served, load_on=True)
        await page.wait_for_function("(before) => window.states > before", arg=received)
        of(served).go.set()
        await expect(page.locator("#announcement")).to_have_text(f"House roof: {UNKNOWN}")
        await page.evaluate("location.hash = '#/'")
        await expect(card(page).locator(".problem")).to_have_text(UNKNOWN)
        await expect(card(page)).to_contain_text("Load unknown")


async def test_a_confirmed_switch_of_a_controller_that_is_removed_is_announced(browser: Browser) -> None:
    async with switching(browser, None) as (served, page):
        (removed,) = served.hub.controllers
        served.hub.controllers = []
        del served.hub.events["roof"]
        served.output.remove(removed)
        await expect(card(page)).to_have_count(0)
        of(served).go.set()
        await expect(page.locator("#announcement")).to_have_text(
            "House roof: the controller confirms that the load is off."
        )
        await expect(card(page)).to_have_count(0)


@pytest.mark.parametrize("end", ['querySelector("dialog button").click()', 'querySelector("dialog").close()'])
async def test_a_question_that_is_asked_right_after_another_has_its_own_answer(end: str, browser: Browser) -> None:
    hub = SwitchingHub()
    hub.go.set()
    async with site(hub) as served, opened(browser, served.url) as (page, _):
        sent: list[str] = []
        page.on("request", lambda request: sent.append(request.url) if request.url.endswith("/load") else None)
        button, dialog = card(page).get_by_role("button", name="Switch off"), page.get_by_role("dialog")
        await button.click()
        await expect(dialog).to_be_visible()
        # The browser reports the end of a dialog later than it ends.
        await page.evaluate(f"() => {{ document.{end}; document.querySelector('article button').click(); }}")
        await expect(dialog).to_be_visible()
        await page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
        assert hub.switched == []
        await dialog.get_by_role("button", name="Switch off").click()
        await expect(card(page)).to_contain_text("Load off")
        assert hub.switched == [("roof", False)]
        assert len(sent) == 1


# The log-in


async def test_behind_a_proxy_with_a_password_people_log_in_and_switch(browser: Browser) -> None:
    password = {"Authorization": "Basic dXNlcjpwYXNzd29yZA=="}
    hub = SwitchingHub()
    hub.go.set()
    async with (
        site(hub, **with_tokens()) as served,
        opened(browser, served.url, extra_http_headers=password) as (page, _),
    ):
        await page.get_by_label("Token from the gateway's configuration").fill(SWITCH)
        await page.keyboard.press("Enter")
        await card(page).get_by_role("button", name="Switch off").click()
        await page.get_by_role("dialog").get_by_role("button", name="Switch off").click()
        await expect(card(page)).to_contain_text("Load off")
        assert hub.switched == [("roof", False)]


@asynccontextmanager
async def with_half_a_token(
    browser: Browser, first_stream: dict[str, Any], **options: Any
) -> AsyncIterator[tuple[Site, Page, Locator, asyncio.Event]]:
    """The log-in page of somebody who may read, in which a part of a token is entered.

    The event stream waits until the last value that is given is set. Then its first request is answered with
    *first_stream*, and the next ones by the gateway.
    """
    async with site(**options) as served, opened(browser, "about:blank") as (page, watch):
        watch.origin, watch.gateway_is_away = served.url, True
        typed = asyncio.Event()

        async def answer(route: Route) -> None:
            await typed.wait()
            await route.fulfill(**first_stream)

        await page.route("**/api/events", answer, times=1)
        await page.goto(served.url)
        field = page.get_by_label("Token from the gateway's configuration")
        if "token" in options:
            await field.fill(READ)
            await page.keyboard.press("Enter")
            await expect(card(page)).to_have_count(2)
        await page.evaluate("location.hash = '#/log-in'")
        await field.fill("half a to")
        yield served, page, field, typed


# What a proxy answers while the gateway starts, and a stream that ends at once.
REFUSED = {"status": 502, "body": "<html>"}
ENDED = {"status": 200, "content_type": "text/event-stream", "body": "retry: 100\n\n"}


def is_open(response: Response) -> bool:
    return response.url.endswith("/api/events") and response.status == 200


async def test_a_half_entered_token_stays_when_the_gateway_is_started_again(browser: Browser) -> None:
    async with with_half_a_token(browser, REFUSED, switch_token=SecretStr(SWITCH)) as (_, page, field, refused):
        # The page fetches everything again after the refusal.
        async with page.expect_response(is_open):
            refused.set()
        await expect(page.locator("#connection")).to_be_hidden()
        await expect(field).to_have_value("half a to")
        await expect(field).to_be_focused()
        await page.get_by_role("link", name="Back").click()
        await expect(card(page)).to_have_count(2)


async def test_a_half_entered_token_stays_when_the_session_ends(browser: Browser) -> None:
    async with with_half_a_token(browser, REFUSED, **with_tokens()) as (_, page, field, refused):
        await page.context.clear_cookies()
        refused.set()
        # Without a session there is no page to go back to.
        await expect(page.get_by_role("link", name="Back")).to_be_hidden()
        await expect(field).to_have_value("half a to")
        await expect(field).to_be_focused()
        await field.fill(READ)
        await page.keyboard.press("Enter")
        await expect(card(page)).to_have_count(2)


async def test_a_half_entered_token_stays_when_there_are_other_controllers(browser: Browser) -> None:
    async with with_half_a_token(browser, ENDED, switch_token=SecretStr(SWITCH)) as (served, page, field, ended):
        removed = served.hub.controllers.pop()
        del served.hub.events[removed.name]
        # The browser opens the stream again, and the page asks which controllers there are.
        async with page.expect_response("**/api/controllers"):
            ended.set()
        await page.evaluate("fetch('/healthz').then((answer) => answer.json())")
        await expect(field).to_have_value("half a to")
        await page.get_by_role("link", name="Back").click()
        await expect(card(page)).to_have_count(1)


# The charts


@pytest.mark.parametrize("width", [320, 360, 412, 768, 1280])
async def test_each_range_has_a_time_axis_on_each_screen(width: int, browser: Browser) -> None:
    hub = StubHub(controller(title="House roof"))
    async with site(hub, history=MonthOfHistory()) as served, opened(browser, served.url, width=width) as (page, _):
        await page.goto(f"{served.url}#/roof")
        for name in ("6 hours", "Day", "Week", "Month"):
            async with page.expect_response("**/history?*"):
                await page.get_by_role("button", name=name, exact=True).click()
            await expect(page.locator("button[aria-pressed=true]")).to_have_text(name)
            power = page.locator("section.panel").filter(has=page.get_by_role("heading", name="Power"))
            labels = power.locator("svg text[text-anchor=middle]")
            await expect(labels.nth(1)).to_be_visible()
            boxes = [await label.bounding_box() for label in await labels.all()]
            edges = [(box["x"], box["x"] + box["width"]) for box in boxes if box is not None]
            assert all(end < start for (_, end), (start, _) in pairwise(edges)), (name, edges)


async def test_a_time_axis_has_labels_for_each_number_that_has_room(browser: Browser) -> None:
    async with site() as served, opened(browser, served.url, timezone_id="Europe/Berlin") as (page, _):
        ticks = await page.evaluate(
            """async () => {
                const { timeTicks } = await import("/static/scale.js");
                const found = [];
                for (const hours of [6, 24, 7 * 24, 30 * 24]) {
                    for (let most = 2; most <= 20; most += 1) {
                        // The clocks change on 25 October 2026, at 1:00 UTC.
                        for (const to of [1792890000, 1792890000 + 11 * 3600, 1794000000]) {
                            const from = to - hours * 3600;
                            found.push([from, to, most, timeTicks(from, to, most).ticks]);
                        }
                    }
                }
                return found;
            }"""
        )
        assert len(ticks) == 4 * 19 * 3
        for start, end, most, moments in ticks:
            assert min(2, most - 1) <= len(moments) <= most + 1, (start, end, most)
            assert all(start <= each <= end for each in moments)
            assert moments == sorted(set(moments))


async def test_an_error_of_a_range_that_was_left_does_not_replace_the_chart_of_the_present_one(
    browser: Browser,
) -> None:
    hub = StubHub(controller(title="House roof"))
    async with site(hub, history=MonthOfHistory()) as served, opened(browser, "about:blank") as (page, watch):
        watch.origin, watch.gateway_is_away = served.url, True
        left = asyncio.Event()

        async def fail(route: Route) -> None:
            await left.wait()
            await route.fulfill(status=503, body='{"error": "the database does not answer"}')

        await page.route("**/history?*", fail, times=1)
        async with page.expect_request("**/history?*") as first:
            await page.goto(f"{served.url}#/roof")
        # Also when the first range is chosen again: its chart is there by now.
        for name in ("Week", "6 hours"):
            async with page.expect_response("**/history?*"):
                await page.get_by_role("button", name=name, exact=True).click()
        charts = page.locator("svg.chart")
        await expect(charts).to_have_count(4)
        left.set()
        failed = await (await first.value).response()
        assert failed is not None
        assert failed.status == 503
        await failed.finished()
        await page.evaluate("fetch('/healthz').then((answer) => answer.json())")
        await expect(page.get_by_text("No history")).to_have_count(0)
        await expect(charts).to_have_count(4)
