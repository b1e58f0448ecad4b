"""Fixtures for the tests of the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateway.mqtt_broker import Broker, Require


@pytest.fixture
async def broker(tmp_path: Path, require: Require) -> AsyncIterator[Broker]:
    """A real broker. Skips the test where there is none."""
    broker = Broker(require, tmp_path)
    await broker.start()
    yield broker
    await broker.kill()
