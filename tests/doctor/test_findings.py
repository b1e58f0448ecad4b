"""Identifiers and their pages."""

from __future__ import annotations

import re
from pathlib import Path

from tracer_async.doctor import FINDING_IDS

PAGE = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")


def test_each_finding_has_a_section_in_the_docs_and_each_section_a_finding() -> None:
    assert sorted(re.findall(r"^### (.+)$", PAGE, re.MULTILINE)) == sorted(FINDING_IDS)


def test_each_section_says_something() -> None:
    for text in re.split(r"^### .+$", PAGE, flags=re.MULTILINE)[1:]:
        assert len(text.split("\n## ")[0].split()) >= 4


def test_identifiers_begin_with_the_part_that_they_are_about() -> None:
    assert {name.partition("-")[0] for name in FINDING_IDS} == {"port", "net", "line", "reply"}
    assert len(set(FINDING_IDS)) == len(FINDING_IDS)
