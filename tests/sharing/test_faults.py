"""Ten programs that come and go on each kind of bad line: no reply answers another request."""

from __future__ import annotations

import pytest

from stress.soak_sharing import KINDS, run_line


@pytest.mark.parametrize(("name", "faults"), KINDS, ids=[name for name, _ in KINDS])
def test_no_program_gets_the_reply_to_another_request(name: str, faults: tuple[str, ...]) -> None:
    outcome = run_line(400, faults, seed=2)
    assert outcome.wrong == []
    assert outcome.counts["replies"] > 100
    if name == "healthy":
        assert outcome.counts["replies"] > 2 * outcome.exchanges
