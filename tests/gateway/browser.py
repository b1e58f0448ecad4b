"""A real browser that looks at the dashboard, and notes what no page may do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright


@asynccontextmanager
async def chromium(require: Callable[[str], str]) -> AsyncIterator[Browser]:
    """The Chromium of the system. Nothing is downloaded."""
    path = require("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Watch:
    """What a page did that it must not do."""

    origin: str
    problems: list[str] = field(default_factory=list)
    gateway_is_away: bool = False
    """Whether requests that fail are expected."""

    def on_console(self, message: ConsoleMessage) -> None:
        refused = "Failed to load resource" in message.text
        if message.type in {"error", "warning"} and not (refused and self.gateway_is_away):
            self.problems.append(f"console: {message.text}")

    def on_error(self, error: Exception) -> None:
        self.problems.append(f"error: {error}")

    def on_request(self, request: Request) -> None:
        if not request.url.startswith(self.origin):
            self.problems.append(f"request: {request.url}")


@asynccontextmanager
async def opened(
    browser: Browser, url: str, *, width: int = 360, height: int = 740, **options: Any
) -> AsyncIterator[tuple[Page, Watch]]:
    """Open a page. At the end: no error on the console, and no request left the gateway's origin."""
    context = await browser.new_context(
        viewport={"width": width, "height": height}, **{"locale": "en-GB", "timezone_id": "UTC", **options}
    )
    try:
        page = await context.new_page()
        page.set_default_timeout(20_000)
        watch = Watch(url.partition("#")[0])
        page.on("console", watch.on_console)
        page.on("pageerror", watch.on_error)
        page.on("request", watch.on_request)
        await page.goto(url)
        yield page, watch
        assert watch.problems == []
    finally:
        await context.close()
