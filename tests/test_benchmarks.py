"""The benchmarks run, and do the same work for each contender. No test here checks a duration."""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import decode, hostile_bytes, page, reference, replies, scaling
from benchmarks.__main__ import ROWS
from benchmarks.measure import TINY, Spread, interleaved, percentile
from benchmarks.page import PAGE, Row, Table, Target
from tracer_async.protocol import FrameDecoder

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="it opens a pseudo-terminal, and reads /proc")


@pytest.mark.slow
@needs_linux
@pytest.mark.parametrize("module", ROWS, ids=lambda module: module.__name__.rpartition(".")[2])
def test_each_row_is_measured(module: ModuleType) -> None:
    row = module.run(TINY)
    assert row.command == module.COMMAND == f"python -m {module.__name__}"
    assert row.targets
    assert row.command in row.markdown()
    for table in row.tables:
        assert all(len(line) == len(table.columns) for line in table.rows)


def test_the_page_names_no_machine() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert not re.search(r"/(home|root|tmp|work|Users)/", text)


def test_the_page_keeps_the_text_around_the_figures(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    copy = tmp_path / PAGE.name
    copy.write_text(text, encoding="utf-8")
    target = Target("speed", "much", "enough", met=True)
    row = Row("A row", "a command", "How.", [target], [Table("", ("a", "b"), [("1", "2")])], ["a note"])
    for _ in range(2):
        page.write_page([row], TINY, 1.0, copy)
    written = copy.read_text(encoding="utf-8")
    before, after = text.partition(page._BEGIN)[0], text.partition(page._END)[2]
    assert written.startswith(before)
    assert written.endswith(page._END + after)
    assert written.count("### A row") == 1
    assert "| A row | speed | much | enough | yes |" in written


CHUNKS = decode.streams(30)
DECODERS = {**decode.DECODERS, **({decode.C: reference.CDecoder} if reference.compiler() else {})}


@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_does_the_same_work(name: str) -> None:
    for cutting, chunks in CHUNKS.items():
        found = decode.count(DECODERS[name], chunks)
        if "bad" not in cutting:
            assert found == 30
        else:
            assert found <= decode.count(FrameDecoder, chunks)
            if name == decode.C:
                assert found == decode.count(FrameDecoder, chunks)


@pytest.mark.parametrize("make", [reference.OldDecoder, reference.StateMachine, reference.HeaderRegex])
def test_references_give_what_was_sent(make: type[reference.OldDecoder]) -> None:
    sent = replies.replies(5)
    assert [data for _, _, data in make().feed(b"".join(sent))] == [reply[9:-3] for reply in sent]


def test_a_hostile_claim_ends_in_7f() -> None:
    found = {length: unit for length in range(201) if (unit := replies.ending_in_7f(length))}
    assert max(found) > 190
    for length, unit in {**found, 0x90: replies.overlapping_7f()}.items():
        stream = replies.hostile(unit, 1000)
        at = stream.index(unit[:6])
        assert stream[at + 8] == length
        assert stream[at + 11 + length] == 0x7F
        hostile_bytes.decode(stream, 100)


def test_damage_is_a_tenth_of_the_bytes() -> None:
    stream = b"".join(replies.replies(10))
    bad = replies.damaged(stream, 0.1)
    assert sum(a != b for a, b in zip(stream, bad, strict=True)) == 36


def test_turns_are_taken() -> None:
    order: list[str] = []
    interleaved({name: partial(order.append, name) for name in "abc"}, 2)
    assert "".join(order) == "abccba"


def test_spreads() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == (1.0, 2.0, 3.0)
    assert Spread.of([3.0, 1.0, 2.0]).text("{:.1f}") == "2.0 (1.0-3.0)"
    assert Spread.of([2.0]).text() == "2"
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.5) == 3.0


def test_the_resources_for_many_controllers_can_be_checked_by_hand() -> None:
    figures = [scaling.Measured("uvloop", 10_000, 45.0, 40.0, 7.0, 0, 10.0)]
    rows = {(row[0], row[1]): row[2:6] for row in scaling.calculated(figures).rows}
    # 200,000 polls/s of 40 µs need 8 cores: 16 processes at 50 % load. At 10,000 controllers each, it takes 100.
    assert rows["1,000,000", "5 s"] == ("200,000", "8.00", "100", "7.00")
    # At ten times the cost, the number of cores decides.
    dear = [figures[0]._replace(cost=400.0)]
    assert [row[4] for row in scaling.calculated(dear).rows if row[:2] == ("1,000,000", "1 s")] == ["800"]
