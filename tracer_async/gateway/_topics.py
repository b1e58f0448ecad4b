"""The topics of the MQTT output."""

from __future__ import annotations

from dataclasses import dataclass

from tracer_async.gateway.config import MqttConfig
from tracer_async.gateway.events import Controller

__all__ = ["Topics"]


@dataclass(frozen=True, slots=True)
class Topics:
    """The names of all topics, made from the configured prefixes."""

    prefix: str
    discovery_prefix: str

    @classmethod
    def of(cls, config: MqttConfig) -> Topics:
        """Return the topics of a configuration."""
        return cls(config.prefix, config.discovery_prefix)

    @property
    def bridge(self) -> str:
        """Whether the gateway is connected: `online` or `offline`."""
        return f"{self.prefix}/bridge/state"

    @property
    def commands(self) -> str:
        """The filter that matches `load_set` of every controller."""
        return f"{self.prefix}/+/load/set"

    @property
    def home_assistant_status(self) -> frozenset[str]:
        """Where Home Assistant says that it has started. Its default does not change with the discovery prefix."""
        return frozenset({f"{self.discovery_prefix}/status", "homeassistant/status"})

    def state(self, name: str) -> str:
        """The last reading, as JSON."""
        return f"{self.prefix}/{name}/state"

    def availability(self, name: str) -> str:
        """Whether the controller answers: `online` or `offline`."""
        return f"{self.prefix}/{name}/availability"

    def connection(self, name: str) -> str:
        """Since when the controller answers or does not, and why not, as JSON."""
        return f"{self.prefix}/{name}/connection"

    def load_set(self, name: str) -> str:
        """Where a load command is expected: `ON` or `OFF`."""
        return f"{self.prefix}/{name}/load/set"

    def discovery(self, controller_id: str) -> str:
        """The device's description for Home Assistant."""
        return f"{self.discovery_prefix}/device/{controller_id}/config"

    def commanded(self, topic: str) -> str | None:
        """Return the name in a topic that `commands` matches; None for another topic."""
        begin, end = f"{self.prefix}/", "/load/set"
        if not topic.startswith(begin) or not topic.endswith(end):
            return None
        return topic[len(begin) : -len(end)]

    def retained(self, controller: Controller) -> list[str]:
        """All topics with retained messages of a controller, except the one of the discovery."""
        name = controller.name
        return [self.state(name), self.availability(name), self.connection(name)]
