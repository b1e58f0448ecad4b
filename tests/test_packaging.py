"""The sdist and the wheel build, and the wheel runs in an environment that has nothing of this tree."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import distribution, requires
from pathlib import Path

import pytest

import tracer_async

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT], check=True, capture_output=True
    )
    return folder


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tracer_async").rglob("*.py")}
    # The dashboard has files of its own, next to its modules.
    web = ROOT / "tracer_async" / "gateway" / "web"
    files = (path for path in web.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc"))
    served = {path.relative_to(ROOT).as_posix() for path in files}
    assert served
    assert sources | served | {"tracer_async/py.typed"} == {name for name in names if ".dist-info/" not in name}


def test_the_sdist_holds_what_the_tests_need(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "Makefile", "conftest.py", "tests/test_packaging.py"} <= names
    assert {f"examples/{path.name}" for path in (ROOT / "examples").glob("*.py")} <= names
    assert {".ci/run", ".ci/peers"} <= names
    assert {"deploy/Containerfile", "deploy/compose/gateway/gateway.toml", "docs/gateway.md"} <= names


def test_every_link_of_the_readme_leads_to_a_file_of_the_sdist(built: Path) -> None:
    """The repository has no known address, so its links are relative: they work within the downloaded sdist."""
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    links = re.findall(r"\]\(([\w./-]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert {"docs/watch.svg", "docs/protocol.md", "CONTRIBUTING.md", "SECURITY.md"} <= set(links)
    for link in links:
        assert link in names or any(name.startswith(link) for name in names), link


def test_the_wheel_has_no_extras_for_developers(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode("utf-8").splitlines()
    extras = {line.removeprefix("Provides-Extra: ") for line in lines if line.startswith("Provides-Extra: ")}
    assert extras == {"all", "bulk", "cli", "fast", "gateway", "parquet", "serial", "serialx"}
    assert "Classifier: Framework :: AnyIO" not in lines


def test_the_wheel_installs_and_runs_alone(built: Path, tmp_path: Path) -> None:
    """With copies of the dependencies installed here, so that no registry is needed."""
    (wheel,) = built.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    needed = dependencies("tracer-async") - {"tracer-async"}
    assert {"aiohappyeyeballs", "anyio"} <= needed
    for name in needed:
        copy_distribution(name, Path(site))
    program = (
        "import asyncio, tracer_async, sys\n"
        "assert tracer_async.__file__.startswith(sys.prefix), tracer_async.__file__\n"
        "async def main():\n"
        "    async with tracer_async.TracerClient('sim:') as tracer:\n"
        "        print((await tracer.read_realtime()).charging)\n"
        "asyncio.run(main())\n"
    )
    run: list[str | Path] = [python, "-W", "error"]
    done = subprocess.run([*run, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.stdout, done.stderr) == ("True\n", "")
    # The command and the serial ports are extras: one sentence each that names the install, and no traceback.
    done = subprocess.run([*run, "-m", "tracer_async"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert "pip install 'tracer-async[cli]'" in done.stderr
    assert "Traceback" not in done.stderr
    done = subprocess.run(
        [*run, "-c", "import tracer_async; tracer_async.TracerClient('/dev/ttyUSB0')"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert "pip install 'tracer-async[serial]'" in done.stderr


def dependencies(name: str) -> set[str]:
    """*name* and what it needs on this Python, by the names of their distributions."""
    from packaging.requirements import Requirement

    found = {name}
    for text in requires(name) or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found |= dependencies(requirement.name)
    return found


def copy_distribution(name: str, site: Path) -> None:
    for file in distribution(name).files or []:
        target = site / file
        if ".." not in file.parts and "__pycache__" not in file.parts:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(Path(str(file.locate())).read_bytes())


def test_the_version_is_written_in_one_place() -> None:
    assert distribution("tracer-async").version == tracer_async.__version__
