"""Without a running asyncio event loop, under trio for example, the first call says what the library needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any

import pytest

from tracer_async import Fleet, TracerClient

SENTENCE = "tracer_async needs asyncio; run it under anyio's asyncio backend"


def run_without_asyncio(call: Callable[[], Awaitable[object]]) -> None:
    """Do what another event loop does first: run the coroutine up to where it waits."""
    coroutine: Generator[Any, Any, Any] = call().__await__()
    next(coroutine)


@pytest.mark.parametrize("start_offline", [False, True])
def test_opening_a_client_without_asyncio_raises_an_error_that_says_what_to_do(start_offline: bool) -> None:
    with pytest.raises(RuntimeError, match=SENTENCE):
        run_without_asyncio(TracerClient("sim:", start_offline=start_offline).open)
    with pytest.raises(RuntimeError, match=SENTENCE):
        run_without_asyncio(TracerClient("sim:", start_offline=start_offline).__aenter__)


def test_adding_to_a_fleet_without_asyncio_raises_an_error_that_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match=SENTENCE):
        Fleet().add("sim:")


def test_a_call_under_trio_raises_an_error_that_says_what_to_do() -> None:
    trio = pytest.importorskip("trio")
    with pytest.raises(RuntimeError, match=SENTENCE):
        trio.run(TracerClient("sim:").open)
