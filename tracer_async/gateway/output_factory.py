"""Makes the outputs that a configuration has, and imports only those."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol
from zoneinfo import ZoneInfo

from tracer_async import MissingExtraError
from tracer_async.gateway.config import GatewayConfig
from tracer_async.gateway.history.query import HistoryReader
from tracer_async.gateway.output import Controllers, Output

__all__ = ["SECTIONS", "MakeOutput", "check_packages", "make_output"]

SECTIONS = ("history", "mqtt", "influx", "web")
"""The sections that are outputs. The history is the first: the dashboard reads it."""

_MODULES = {"history": "history.store", "mqtt": "mqtt", "influx": "influx", "web": "web"}


class MakeOutput(Protocol):
    """Returns the output of a section; the history is that of the running service, if it has one."""

    def __call__(
        self, section: str, config: GatewayConfig, controllers: Controllers, history: HistoryReader | None, /
    ) -> Output:
        """Make the output of *section*, which is in *config*."""


def make_output(section: str, config: GatewayConfig, controllers: Controllers, history: HistoryReader | None) -> Output:
    """Make the output of *section*. Raises MissingExtraError, and OSError or ValueError for a file it cannot use."""
    try:
        return _make(section, config, controllers, history)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"the gateway's section [{section}]", "gateway") from error


def check_packages(config: GatewayConfig) -> None:
    """Raise MissingExtraError if a package is missing that one of the configured outputs needs."""
    for section in SECTIONS:
        if getattr(config, section) is not None:
            try:
                import_module(f"tracer_async.gateway.{_MODULES[section]}")
            except ModuleNotFoundError as error:
                raise MissingExtraError(f"the gateway's section [{section}]", "gateway") from error


def _make(section: str, config: GatewayConfig, controllers: Controllers, history: HistoryReader | None) -> Output:
    zone = None if config.time_zone is None else ZoneInfo(config.time_zone)
    if section == "history" and config.history is not None:
        from tracer_async.gateway.history.store import HistoryOutput

        return HistoryOutput(config.history, directory=config.state_directory, zone=zone)
    if section == "mqtt" and config.mqtt is not None:
        from tracer_async.gateway.mqtt import MqttOutput

        return MqttOutput(config.mqtt, controllers, directory=config.state_directory)
    if section == "influx" and config.influx is not None:
        from tracer_async.gateway.influx import InfluxOutput

        return InfluxOutput(config.influx)
    if section == "web" and config.web is not None:
        from tracer_async.gateway.web import WebOutput

        return WebOutput(config.web, controllers, history=history, zone=zone)
    raise ValueError(f"there is no section [{section}]")
