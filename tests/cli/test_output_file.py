"""Files that decode writes: none is lost, and none is left half written."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tracer_async.cli.output_file import opened

REPLY = bytes.fromhex("eb90eb90eb9000a018dc04500d000000005904980500000029000000013a760100d9697f")
FORMATS = ["text", "json", "csv", "parquet"]


def hard_link(capture: Path, other: Path) -> None:
    os.link(capture, other)


def symbolic_link(capture: Path, other: Path) -> None:
    other.symlink_to(capture)


def chain_of_links(capture: Path, other: Path) -> None:
    between = other.with_name("between")
    between.symlink_to(capture.name)
    other.symlink_to(between.name)


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "capture.bin"
    path.write_bytes(REPLY * 3)
    return path


@pytest.mark.parametrize("form", FORMATS)
def test_the_capture_itself_is_no_output(command: Command, capture: Path, form: str) -> None:
    code, out, err = command("decode", str(capture), "-f", form, "-o", str(capture))
    assert (code, out) == (2, "")
    assert "Choose another file" in err
    assert capture.read_bytes() == REPLY * 3
    assert [path.name for path in capture.parent.iterdir()] == ["capture.bin"]


@pytest.mark.parametrize("link", [hard_link, symbolic_link, chain_of_links])
@pytest.mark.parametrize("swapped", [False, True], ids=["output is the link", "input is the link"])
def test_a_link_to_the_capture_is_no_output(
    command: Command, capture: Path, link: Callable[[Path, Path], None], swapped: bool
) -> None:
    other = capture.with_name("other.csv")
    link(capture, other)
    read, written = (other, capture) if swapped else (capture, other)
    code, out, err = command("decode", str(read), "-f", "csv", "-o", str(written))
    assert (code, out) == (2, "")
    assert "Choose another file" in err
    assert capture.read_bytes() == REPLY * 3


def test_the_file_on_standard_input_is_no_output(capture: Path) -> None:
    import subprocess
    import sys

    from tests.cli.conftest import environment

    arguments = [sys.executable, "-m", "tracer_async", "decode", "-", "-f", "csv", "-o", str(capture)]
    with capture.open("rb") as file:
        done = subprocess.run(arguments, stdin=file, capture_output=True, env=environment(), check=False)
    assert done.returncode == 2
    assert capture.read_bytes() == REPLY * 3


def test_files_beside_the_output_stay_what_they_are(command: Command, capture: Path) -> None:
    """An earlier version wrote to y.csv.part, and deleted it."""
    folder = capture.parent
    others = {folder / name: name.encode() for name in ("y.csv.part", "y.csv.tmp", ".y.csv", "y.csv~")}
    for path, content in others.items():
        path.write_bytes(content)
    assert command("decode", str(capture), "-f", "csv", "-o", str(folder / "y.csv")).code == 0
    assert {path: path.read_bytes() for path in others} == others
    assert set(folder.iterdir()) == {*others, capture, folder / "y.csv"}


def test_a_link_to_another_file_stays_a_link(command: Command, capture: Path) -> None:
    target, link = capture.with_name("target.csv"), capture.with_name("link.csv")
    target.write_text("old")
    link.symlink_to(target)
    assert command("decode", str(capture), "-f", "csv", "-o", str(link)).code == 0
    assert link.is_symlink()
    assert target.read_text("utf-8").startswith("offset,")


def test_the_old_file_is_there_until_the_new_one_replaces_it(capture: Path) -> None:
    path = capture.with_name("y.csv")
    path.write_text("old")
    path.chmod(0o640)
    with path.open() as reader, capture.open("rb") as source:
        with opened(path, source) as out:
            out.write(b"new")
            out.flush()
            assert path.read_text() == "old"
        assert path.read_text() == "new"
        assert reader.read() == "old"  # a reader that has it open keeps the old content
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_an_error_leaves_the_old_file_and_no_other(capture: Path) -> None:
    path = capture.with_name("y.csv")
    path.write_text("old")

    def write_half(failure: BaseException) -> None:
        with capture.open("rb") as source, opened(path, source) as out:
            out.write(b"half")
            raise failure

    for failure in (KeyboardInterrupt(), RuntimeError()):
        with pytest.raises(type(failure)):
            write_half(failure)
        assert path.read_text() == "old"
        assert {entry.name for entry in capture.parent.iterdir()} == {"capture.bin", "y.csv"}


def test_a_new_file_has_the_permissions_of_any_other_new_file(command: Command, capture: Path) -> None:
    plain, made = capture.with_name("plain"), capture.with_name("made")
    plain.touch()
    assert command("decode", str(capture), "-f", "csv", "-o", str(made)).code == 0
    assert made.stat().st_mode == plain.stat().st_mode


def test_a_folder_that_is_not_there_is_one_sentence(command: Command, capture: Path) -> None:
    code, out, err = command("decode", str(capture), "-f", "csv", "-o", str(capture.parent / "no" / "y.csv"))
    assert (code, out) == (1, "")
    assert "y.csv" in err
    assert "No such file or directory" in err
    assert err.count("\n") == 1
