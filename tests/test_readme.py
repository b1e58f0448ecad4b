"""Everything that README.md names exists. Its Python code runs as well: see `conftest.py` next to it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

import tracer_async
from tracer_async import RealtimeData, TracerClient, errors
from tracer_async.cli.app import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
CONSOLE = [
    line.removeprefix("$ ").partition("  #")[0].strip()
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")),
]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_the_first_example_is_short() -> None:
    assert len(PYTHON[0].strip().splitlines()) <= 14
    assert "sim:" in PYTHON[0]


def test_every_field_and_every_error_is_described() -> None:
    for name in (*RealtimeData._fields, "charge_power", "load_power", *errors.__all__):
        assert f"`{name}`" in README, name


def test_every_call_that_is_described_exists() -> None:
    calls = set(re.findall(r"`[^`\n]*\btracer\.(\w+)", README)) - {"sock"}
    assert calls >= {"read_realtime", "read", "set_load", "write_settings", "execute", "poll", "frames", "stats"}
    assert calls >= {"state", "state_changes", "open", "aclose"}
    old_program = {"set_load_on"}
    assert all(hasattr(TracerClient, name) for name in calls - old_program)


def test_every_way_to_get_a_reading_is_in_one_table() -> None:
    table = README.partition("| you want | call |")[2].partition("\n\n")[0]
    for call in (
        "tracer.read_realtime()",
        "tracer.read_realtime(max_age=",
        "tracer.read()",
        "tracer.poll(",
        "execute(",
    ):
        assert call in table, call


def test_every_url_that_is_described_is_valid() -> None:
    from tracer_async.transport import parse_address

    table = README.partition("| URL | what it means |")[2].partition("\n\n")[0]
    urls = [url for url in re.findall(r"`([^`]+)`", table) if "=" not in url.partition(":")[0]]
    assert len(urls) >= 9
    for url in urls:
        if not url.startswith("backend="):
            parse_address(url)


def test_new_names_in_the_table_of_old_names_exist() -> None:
    table = README.partition("| tracermppt 0.3 |")[2].partition("\n\n")[0]
    new = "\n".join(row.split("|")[2] for row in table.splitlines() if row.startswith("|"))
    fields, classes = re.findall(r"`data\.(\w+)`", new), re.findall(r"`(\w+Error)`", new)
    assert len(fields) >= 5
    assert len(classes) >= 3
    assert set(fields) <= set(RealtimeData._fields)
    assert all(hasattr(tracer_async, name) for name in classes)


@pytest.mark.parametrize("command", [line for line in CONSOLE if "tracer-async" in line.partition(" ")[0]])
def test_a_command_line_of_the_readme_is_accepted(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restored_logging: None
) -> None:
    """Its arguments are parsed; nothing is run."""
    monkeypatch.chdir(tmp_path)
    for file in ("capture.bin", "line.jsonl", "report.jsonl"):
        Path(file).touch()
    arguments = shlex.split(command)[1:]
    context = cli.make_context("tracer-async", list(arguments), resilient_parsing=True)
    name, found, rest = cli.resolve_command(context, arguments)
    assert found is not None
    if "--help" in rest:
        with pytest.raises(click.exceptions.Exit):
            found.make_context(name, rest, parent=context)
    else:
        found.make_context(name, rest, parent=context).close()


def test_every_make_target_that_a_page_names_exists() -> None:
    named = {
        name
        for page in PAGES
        for name in re.findall(r"(?:`|\$ )make ([a-z-]+)", (ROOT / page).read_text(encoding="utf-8"))
    }
    assert named >= {"demo", "test", "help", "lint"}
    assert named <= TARGETS


def test_the_demo_and_the_picture_show_a_day_in_two_minutes() -> None:
    from tracer_async.transport import SimAddress, parse_address

    assert "a day in two minutes" in README
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    urls = re.findall(r"'(sim:\?[^']+)'", makefile)
    assert len(urls) == 2
    for url in urls:
        address = parse_address(url)
        assert isinstance(address, SimAddress)
        assert address.time_scale * 120 == 24 * 60 * 60
    described = (ROOT / "docs" / "command.md").read_text(encoding="utf-8")
    assert f"watch '{urls[1]}'" in described
    assert urls[1].replace("&", "&amp;") in (ROOT / "docs" / "watch.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_of_the_repository(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", link)]
    for link in links:
        path, _, heading = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        assert target.resolve().is_relative_to(ROOT), link
        if heading:
            assert heading in headings(target.read_text(encoding="utf-8")), link


def headings(text: str) -> set[str]:
    """The anchors of a page."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_files_that_are_named_exist() -> None:
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for name in re.findall(r"`((?:examples|docs|tests|benchmarks|stress|fuzz|tracer_async)/[\w./]*)`", text):
            assert (ROOT / name).exists(), f"{page} names {name}"
