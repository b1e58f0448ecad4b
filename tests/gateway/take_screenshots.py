"""Take the pictures of the docs: ``python -m tests.gateway.take_screenshots``, or ``make screenshots`` (1 minute).

The gateway of the pictures has three simulated controllers, and a history of 31 days of one of them.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.async_api import Browser, Page, expect

from tests.conftest import require
from tests.gateway.browser import chromium, opened
from tests.gateway.dashboard_site import Dashboard, Device, dashboard, zone_where_it_is
from tests.gateway.small_png import with_palette

_DOCS = Path(__file__).parents[2] / "docs"

_DEVICES = {
    "house": Device("House roof", seed=7, state_of_charge=0.5, interval=1, past_days=31),
    "barn": Device("Barn", seed=2, state_of_charge=0.75, interval=1, past_days=1),
    "boat": Device("Boat", seed=3, state_of_charge=0.2, interval=1, past_days=1),
}


async def take_screenshots() -> dict[str, bytes]:
    """Return the files by name: the first screen of a phone, and a controller's page on a wide screen."""
    zone, zone_name = zone_where_it_is(13)
    pictures = {}
    with TemporaryDirectory() as folder:
        async with dashboard(Path(folder), _DEVICES, zone=zone) as site, chromium(require) as browser:
            for scheme in ("light", "dark"):
                look: dict[str, Any] = {"color_scheme": scheme, "timezone_id": zone_name}
                pictures[f"dashboard-360-{scheme}.png"] = await _phone(browser, site, look)
                pictures[f"dashboard-1280-{scheme}.png"] = await _wide_screen(browser, site, look)
    return {name: with_palette(picture) for name, picture in pictures.items()}


async def _phone(browser: Browser, site: Dashboard, look: dict[str, Any]) -> bytes:
    async with opened(browser, site.url, width=360, height=740, **look) as (page, _):
        await expect(page.locator("article")).to_have_count(len(_DEVICES))
        return await _picture(page)


async def _wide_screen(browser: Browser, site: Dashboard, look: dict[str, Any]) -> bytes:
    async with opened(browser, f"{site.url}#/house", width=1280, height=1290, **look) as (page, _):
        await page.get_by_role("button", name="Day", exact=True).click()
        await page.evaluate("document.activeElement.blur()")
        await expect(page.locator("svg.chart")).to_have_count(4)
        return await _picture(page)


async def _picture(page: Page) -> bytes:
    """Take a picture as soon as all energies are known, and all readings are new."""
    for values in await page.locator("dd").all():
        await expect(values).not_to_have_text("\N{EN DASH}")
    for freshness in await page.locator(".freshness").all():
        await expect(freshness).to_contain_text("s ago")
    return await page.screenshot()


def main() -> int:
    """Take all pictures, into ``docs`` or the directory that is given."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else _DOCS
    for name, picture in asyncio.run(take_screenshots()).items():
        (directory / name).write_bytes(picture)
        print(f"{directory / name}: {len(picture):,} bytes")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
