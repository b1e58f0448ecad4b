"""The Python code in README.md, CONTRIBUTING.md and docs/ runs in the tests: each page is one program."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from tracer_async import Reading, TracerClient


def begin(namespace: dict[str, Any]) -> None:
    """Prepare the namespace of a page: its code is a program, and a poll without an end stops after one reading."""
    namespace["__name__"] = "__main__"
    patch = namespace["_patch"] = pytest.MonkeyPatch()
    poll = TracerClient.poll

    async def poll_once(tracer: TracerClient, interval: float) -> AsyncGenerator[Reading, None]:
        readings = poll(tracer, interval)
        yield await anext(readings)
        await readings.aclose()

    patch.setattr(TracerClient, "poll", poll_once)


def end(namespace: dict[str, Any]) -> None:
    """Undo what `begin` replaced."""
    namespace["_patch"].undo()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()],
    patterns=["README.md", "CONTRIBUTING.md", "docs/*.md"],
    setup=begin,
    teardown=end,
).pytest()
