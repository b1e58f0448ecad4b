"""The blocking client has the methods of the asyncio client, except those that its documentation names."""

from __future__ import annotations

from pathlib import Path

import tracer_async
from tracer_async import sync

PAGE = (Path(__file__).parents[2] / "docs" / "blocking.md").read_text(encoding="utf-8")

# Not for users: it is for other modules of the library.
INTERNAL = {"connection"}


def public(client: object) -> set[str]:
    return {name for name in dir(client) if not name.startswith("_")}


def test_the_documentation_names_the_methods_that_the_blocking_client_lacks() -> None:
    missing = public(tracer_async.TracerClient("sim:")) - public(sync.TracerClient("sim:")) - INTERNAL
    assert missing == {"aclose", "frames", "state_changes", "wait_closed"}
    for text in (PAGE, sync.TracerClient.__doc__ or ""):
        assert {name for name in missing if f"`{name}" not in text} == set()
