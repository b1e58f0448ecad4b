"""The public names, pinned, and the rules that keep all other names internal."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import tracer_async
from tracer_async.errors import TracerError

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tracer_async"

PUBLIC = {
    "tracer_async": """
        AddressError AmbiguousReplyError BatteryType CaptureError ClientOptions Command CommandCode ConnectionState
        ControlSettings CorruptFrame EchoError Fleet FleetReading Frame FrameDecoder HostNotFoundError LinkClosedError
        LinkError LinkFloodedError LinkLostError LinkRefusedError LinkTimeoutError LoadError LoadMode LoadRefusedError
        LoadState LoadUnknownError MalformedReplyError ManualControl MissingExtraError Noise PortBusyError
        PortNotFoundError PortPermissionError ReadRealtime Reading RealtimeData ResponseTimeoutError SessionStats
        Subscription TlsError TracerClient TracerError WriteSettings crc16 poll
    """,
    "tracer_async.protocol": """
        DUPLICATE_WINDOW DUPLICATING_LINE_PERIOD END LATE_REPLY_WINDOW MAX_DATA OVERHEAD START_UP SYNC
        Answer Answered BatteryType Command CommandCode ControlSettings CorruptFrame DecoderStats Event Exchange Failed
        Frame FrameDecoder LinkFailed LoadMode LoadState ManualControl Match Noise ReadRealtime RealtimeData Reason
        Request Session SessionEvent SessionOptions SessionStats WriteSettings crc16
    """,
    "tracer_async.simulator": """
        FAULT_KINDS Fault FaultKind Faults Installation Replay SimulatedTracer Stage open_in_process parse_fault
        serve_pty serve_tcp serve_unix
    """,
    "tracer_async.capture": """
        KINDS NOISE_PIECE Burst Capture CaptureFormat CapturedEvent DamagedLine LinkChange MissingRecords Record
        Recorder Recording RecordingHeader anonymized decode_capture decode_chunks guess_format read_capture readings_of
        to_line
    """,
    "tracer_async.transport": """
        Address SerialAddress SimAddress TcpAddress TransportFactory UnixAddress parse_address
    """,
    "tracer_async.backoff": "backoff",
    "tracer_async.records": "DATA_FIELDS Value line_protocol_point rounded_age to_record utc",
    "tracer_async.sync": "TracerClient",
    "tracer_async.doctor": "FINDING_IDS Finding Severity diagnose",
    "tracer_async.sharing": "Listener ObservedExchange Sharing SharingStats share",
    "tracer_async.cli": "main",
}

# Modules without an underscore, apart from the packages. All of their names are public, in their own package or in
# `tracer_async`, except those that are listed after them. The command and the gateway are applications.
MODULES = {
    "tracer_async.backoff": "backoff",
    "tracer_async.records": "DATA_FIELDS Value line_protocol_point rounded_age to_record utc",
    "tracer_async.compat": """
        Commands NetTracer Tracer TracerCRCError TracerException TracerMalformedDataError TracerReadTimeout
        TracerSyncTimeout
    """,
    "tracer_async.errors": "",
    "tracer_async.client.client": "",
    "tracer_async.client.fleet": "",
    "tracer_async.client.polling": "",
    "tracer_async.client.reading": "",
    "tracer_async.client.subscription": "",
    "tracer_async.protocol.commands": "",
    "tracer_async.protocol.decoder": "",
    "tracer_async.protocol.exchange": "",
    "tracer_async.protocol.frame": "",
    "tracer_async.protocol.session": "",
    "tracer_async.protocol.values": "",
    "tracer_async.simulator.device": "",
    "tracer_async.simulator.faults": "",
    "tracer_async.simulator.servers": "",
    "tracer_async.transport.address": "",
}


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names(package: str) -> None:
    module = import_module(package)
    assert sorted(module.__all__) == sorted(PUBLIC[package].split())
    assert all(hasattr(module, name) for name in module.__all__)


def test_every_module_that_is_not_internal_is_one_of_these() -> None:
    names = {module_name(path) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
    applications = ("tracer_async.cli.", "tracer_async.gateway.")
    public = {name for name in names if "._" not in name and not name.startswith(applications)}
    assert public - {"tracer_async.__main__"} == set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_the_names_of_a_public_module_are_public(name: str) -> None:
    package = import_module(name.rpartition(".")[0])
    public = {*tracer_async.__all__, *getattr(package, "__all__", ())}
    assert set(import_module(name).__all__) - public == set(MODULES[name].split())


def test_every_error_is_in_the_tree_and_public() -> None:
    from tracer_async import errors

    assert all(issubclass(getattr(errors, name), TracerError) for name in errors.__all__)
    assert set(errors.__all__) < set(tracer_async.__all__)
    assert errors.__doc__ is not None
    assert all(name in errors.__doc__ for name in errors.__all__)


@pytest.mark.parametrize(
    "module", ["tracer_async", "tracer_async.simulator", "tracer_async.capture", "tracer_async.cli"]
)
def test_importing_imports_nothing_of_an_extra(module: str) -> None:
    program = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"serial", "serial_asyncio", "serialx", "click", "rich", "numpy", "aiohttp"} & set(done.stdout.split())


def test_the_simulator_is_not_imported_before_it_is_asked_for() -> None:
    program = "import sys, tracer_async; print('tracer_async.simulator' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# The imports between modules, read from their source code.


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def sources(folder: Path = PACKAGE) -> dict[str, ast.Module]:
    return {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in folder.rglob("*.py")}


SOURCES = sources()


def imported(tree: ast.AST) -> Iterator[tuple[str, str | None]]:
    """The modules of the package that are imported, each with the name that is taken from it; within functions, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                if module in SOURCES:
                    yield module, None
                elif node.module in SOURCES:
                    yield node.module, alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in SOURCES:
                    yield alias.name, None


def is_private(name: str | None) -> bool:
    return name is not None and name.startswith("_") and not name.endswith("__")


def test_imports_are_found() -> None:
    tree = ast.parse("from tracer_async.transport import _threads, parse_address\ndef f(): import tracer_async.errors")
    found = {("tracer_async.transport._threads", None), ("tracer_async.transport", "parse_address")}
    assert set(imported(tree)) == found | {("tracer_async.errors", None)}


@pytest.mark.parametrize("module", SOURCES)
def test_no_module_imports_a_private_name(module: str) -> None:
    assert not [(source, name) for source, name in imported(SOURCES[module]) if is_private(name)]


@pytest.mark.parametrize("module", SOURCES)
def test_no_module_uses_a_private_attribute_of_another_ones_objects(module: str) -> None:
    """A private attribute that is used is assigned or defined in the same module, or is that of a base class."""
    tree = SOURCES[module]
    own, used = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                own.add(node.attr)
            else:
                used.add(node.attr)
    of_named_tuples = {"_asdict", "_fields", "_replace"}
    assert not used - own - of_named_tuples


def test_ruff_checks_private_access_in_the_whole_package() -> None:
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    assert ruff["select"] == ["ALL"]
    assert not {code for code in ruff["ignore"] if code.startswith("SLF")}
    for pattern, codes in ruff["per-file-ignores"].items():
        assert not (pattern.startswith(("tracer_async", "*")) and {"SLF", "SLF001"} & set(codes)), pattern
    for path in PACKAGE.rglob("*.py"):
        assert not re.search(r"noqa: [^#]*SLF|ruff: noqa", path.read_text(encoding="utf-8")), path


def test_the_modules_of_captures_import_each_other_in_one_direction_only() -> None:
    graph = {
        module: {source for source, _ in imported(tree) if source.startswith("tracer_async.capture.")}
        for module, tree in SOURCES.items()
        if module.startswith("tracer_async.capture.")
    }
    assert "tracer_async.capture._scan" in graph["tracer_async.capture._columns"]
    assert "tracer_async.capture._columns" not in graph["tracer_async.capture._scan"]
    TopologicalSorter(graph).prepare()  # raises CycleError


def is_of_the_command(module: str) -> bool:
    return module == "tracer_async.cli" or module.startswith("tracer_async.cli.")


PUBLIC_PLACES = {*PUBLIC, "tracer_async.errors"} - {"tracer_async.cli"}


def is_of_the_gateway(module: str) -> bool:
    return module == "tracer_async.gateway" or module.startswith("tracer_async.gateway.")


@pytest.mark.parametrize("module", [name for name in SOURCES if is_of_the_command(name)])
def test_the_command_uses_public_names_only(module: str) -> None:
    used = {source for source, _ in imported(SOURCES[module]) if not is_of_the_command(source)}
    of_the_gateway = {source for source in used if is_of_the_gateway(source)}
    assert not [source for source in of_the_gateway if "._" in source]
    assert used - of_the_gateway <= PUBLIC_PLACES


@pytest.mark.parametrize("module", [name for name in SOURCES if is_of_the_gateway(name)])
def test_the_gateway_uses_public_names_only(module: str) -> None:
    for source, taken in imported(SOURCES[module]):
        if not is_of_the_gateway(source) and taken != "__version__":
            assert source in PUBLIC_PLACES, source
            assert taken is None or taken in import_module(source).__all__, (source, taken)


def test_only_the_command_uses_the_gateway() -> None:
    users = {module for module, tree in SOURCES.items() if any(is_of_the_gateway(name) for name, _ in imported(tree))}
    assert not [module for module in users if not is_of_the_gateway(module) and not is_of_the_command(module)]


def test_the_examples_use_public_names_only() -> None:
    trees = sources(ROOT / "examples")
    assert len(trees) >= 7
    for name, tree in trees.items():
        used = set(imported(tree))
        assert used, name
        for source, taken in used:
            assert taken is None or taken in import_module(source).__all__, (name, source, taken)
            assert source in PUBLIC_PLACES, (name, source)
