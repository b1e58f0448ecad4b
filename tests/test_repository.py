"""What the repository offers its developers is consistent: targets, dependency groups, workflows, pages."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def phony_targets() -> set[str]:
    (names,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    return set(names.split())


@pytest.mark.parametrize("arguments", [["help"], []], ids=["make help", "make"])
def test_make_help_lists_each_target_in_one_line(require: Callable[[str], str], arguments: list[str]) -> None:
    # `make test` runs this test: its flags and its level must not reach this make.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        [require("make"), *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert {line.split()[1] for line in lines} == phony_targets()
    assert all(len(line) <= 100 and len(line.split()) > 3 for line in lines)


def test_targets_that_take_minutes_are_described_for_contributors() -> None:
    quick = {"help", "demo", "gateway", "man", "picture", "format", "clean"}
    assert all(f"| `make {target}" in CONTRIBUTING for target in phony_targets() - quick)


def test_tools_for_developers_are_groups_and_no_extras() -> None:
    assert set(PYPROJECT["dependency-groups"]) >= {"dev", "test", "lint", "typecheck", "bench"}
    assert set(PYPROJECT["project"]["optional-dependencies"]) == {
        "serial",
        "serialx",
        "cli",
        "fast",
        "bulk",
        "parquet",
        "gateway",
        "all",
    }


def test_the_makefile_and_the_workflow_install_groups_that_exist() -> None:
    for path in ("Makefile", ".github/workflows/ci.yml", "CONTRIBUTING.md"):
        text = (ROOT / path).read_text(encoding="utf-8")
        named = set(re.findall(r"--group ([a-z]+)", text))
        assert named, path
        assert named <= set(PYPROJECT["dependency-groups"])


def test_actions_are_pinned_to_a_full_version_or_a_commit() -> None:
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        used = re.findall(r"uses: (\S+)", path.read_text(encoding="utf-8"))
        assert used
        assert all(re.fullmatch(r"[\w/-]+@(v\d+\.\d+\.\d+|[0-9a-f]{40})", action) for action in used)


def test_the_workflow_tests_each_python_from_the_oldest_supported_one_on() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    (versions,) = re.findall(r"python: \[(.*)\]", text)
    assert versions == '"3.11", "3.12", "3.13", "3.14"'
    assert PYPROJECT["project"]["requires-python"] == ">=3.11"
