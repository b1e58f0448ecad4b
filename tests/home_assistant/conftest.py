"""Tests inside Home Assistant. They need an environment of their own: `make home-assistant`."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

# Home Assistant pins the versions of hundreds of packages, so it is not installed beside the other tests.
collect_ignore_glob = ["test_*.py"] if find_spec("homeassistant") is None else []


@pytest.fixture
def expected_lingering_timers() -> bool:
    """Home Assistant's MQTT client leaves its own timer behind."""
    return True
