"""The configuration of the gateway: what each key means, its default and its range.

The models are the one description of the file: errors, the example, the reference in the docs and the JSON schema are
made from them. `tracer_async.gateway.config_file` reads a file into them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from tracer_async import AddressError
from tracer_async.gateway._config_conflicts import conflicts, line_of
from tracer_async.gateway._config_types import FilePath, Name, OneOrMore, Section, Topic, Zone, is_loopback, split_url
from tracer_async.transport import Address, SimAddress, parse_address

__all__ = [
    "ControllerConfig",
    "EnergyConfig",
    "GatewayConfig",
    "HistoryConfig",
    "InfluxConfig",
    "LogConfig",
    "MqttConfig",
    "Section",
    "WebConfig",
    "is_loopback",
]


class ControllerConfig(Section):
    """A controller, with `url` or `listen`. The table's name is its name in topics, labels and URLs."""

    url: str | None = Field(
        default=None,
        description="Address of the controller, as for the command `tracer-async read`.",
        examples=["192.168.1.20:8088"],
    )
    listen: OneOrMore | None = Field(
        default=None,
        description="Instead of `url`: port on which the gateway hears another master, such as a meter, read the "
        "controller. It sends nothing. An array of two if each direction has its own port.",
        examples=["/dev/ttyUSB1"],
    )
    interval: float = Field(
        default=5.0,
        ge=0.2,
        le=3600,
        description="Seconds between two readings. With `listen`, those of the other master.",
    )
    title: str | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="Name for people. It is in no topic, label or tag.",
        examples=["Roof of the house"],
    )
    id: Name | None = Field(
        default=None,
        description="Stable identifier for Home Assistant. Set it before you rename a controller, to the old name. "
        "Default: the name.",
        examples=["roof"],
    )
    controller_id: int = Field(default=0x16, ge=0, le=255, description="ID byte in requests. Controllers ignore it.")
    timeout: float = Field(default=1.0, ge=0.05, le=60, description="Seconds to wait for an answer.")
    retries: int = Field(
        default=2, ge=0, le=20, description="How often a reading without an answer is requested again."
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        if url is not None:
            _parse_url(url)
        return url

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, listen: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if listen is None:
            return None
        if len(listen) not in (1, 2):
            raise ValueError("write one URL, or two if each direction has its own port")
        if any(isinstance(_parse_url(url), SimAddress) for url in listen):
            raise ValueError("sim: has no line to listen to; write url instead")
        if len({line_of(url) for url in listen}) < len(listen):
            raise ValueError("both URLs are the same port; write it once if it has both directions")
        return listen

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.url is None and self.listen is None:
            raise ValueError("url is missing: the address of the controller; or write listen, to hear another master")
        if self.url is not None and self.listen is not None:
            raise ValueError("give url or listen, not both")
        if self.listen is not None:
            for name in ("controller_id", "timeout", "retries"):
                if name in self.model_fields_set:
                    raise ValueError(f"{name} has no effect with listen, which sends no requests; remove it")
        return self


def _parse_url(url: str) -> Address:
    """Return the address. Raises ValueError with the reason why it is none."""
    try:
        return parse_address(url)
    except AddressError as error:
        if "@" in url:  # the text might repeat a password
            raise ValueError("the address of a controller has no user name or password") from None
        raise ValueError(str(error).partition("is not the address of a controller: ")[2]) from None


def _check_user(config: MqttConfig | InfluxConfig) -> None:
    """Raise ValueError for a password without a user name: it would not be sent."""
    if config.username is None and (config.password is not None or config.password_file is not None):
        raise ValueError("a password needs a user name: set username")


class MqttConfig(Section):
    """The MQTT broker, and Home Assistant's discovery."""

    url: str = Field(
        description="`mqtt://HOST:PORT` (default port 1883), or `mqtts://HOST:PORT` for TLS (8883).",
        examples=["mqtts://broker.local:8883"],
    )
    username: str | None = Field(
        default=None, min_length=1, description="User name for the broker.", examples=["solar"]
    )
    password: SecretStr | None = Field(
        default=None,
        min_length=1,
        description="Password for the broker, with `username`.",
        examples=["${MQTT_PASSWORD}"],
    )
    password_file: FilePath | None = Field(
        default=None, description="File that contains the password.", examples=["mqtt.password"]
    )
    ca_file: FilePath | None = Field(
        default=None,
        description="Certificate authority (PEM) that signed the broker's certificate.",
        examples=["ca.pem"],
    )
    cert_file: FilePath | None = Field(default=None, description="Client certificate (PEM).", examples=["gateway.pem"])
    key_file: FilePath | None = Field(
        default=None, description="Key of the client certificate (PEM).", examples=["gateway.key"]
    )
    client_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="MQTT client ID. Default: `tracer-async-` and the prefix.",
        examples=["tracer-async-tracer"],
    )
    prefix: Topic = Field(default="tracer", description="First part of all topics.")
    commands: bool | None = Field(
        default=None,
        description="Whether `PREFIX/NAME/load/set` switches the load. "
        "Default: only if the broker is on this machine, or `username` is set.",
        examples=[False],
    )
    discovery: bool = Field(default=True, description="Whether to announce the controllers to Home Assistant.")
    discovery_prefix: Topic = Field(default="homeassistant", description="Home Assistant's discovery prefix.")

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        split_url(url, "mqtt", "mqtts")
        return url

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.password_file is not None and self.password is not None:
            raise ValueError("give password or password_file, not both")
        _check_user(self)
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together")
        if not self.tls and (self.ca_file or self.cert_file):
            raise ValueError("certificates need a URL that begins with mqtts://")
        return self

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return urlsplit(self.url).scheme == "mqtts"

    @property
    def host(self) -> str:
        """The broker's host name or address."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The broker's port."""
        return urlsplit(self.url).port or (8883 if self.tls else 1883)

    @property
    def accepts_commands(self) -> bool:
        """Whether load commands are followed: see `commands`."""
        if self.commands is not None:
            return self.commands
        return self.username is not None or is_loopback(self.host)


class WebConfig(Section):
    """The dashboard, its JSON API, and `/metrics` for Prometheus."""

    listen: str = Field(default="127.0.0.1:8090", description="`HOST:PORT` to listen on. Port 0 picks a free port.")
    auth: Literal["token", "none"] | None = Field(
        default=None,
        description='`"none"` allows access without a token on other addresses than the loopback ones. '
        "Default: a token is needed there.",
        examples=["none"],
    )
    token: SecretStr | None = Field(
        default=None, min_length=8, description="Token that allows reading.", examples=["${WEB_TOKEN}"]
    )
    token_file: FilePath | None = Field(
        default=None, description="File that contains the token for reading.", examples=["web.token"]
    )
    switch_token: SecretStr | None = Field(
        default=None,
        min_length=8,
        description="Token that allows switching the load, too.",
        examples=["${WEB_SWITCH_TOKEN}"],
    )
    switch_token_file: FilePath | None = Field(
        default=None, description="File that contains the token for switching.", examples=["switch.token"]
    )
    hosts: tuple[str, ...] = Field(
        default=(),
        description="More host names by which browsers may reach the gateway (behind a proxy, in a container).",
    )
    cert_file: FilePath | None = Field(default=None, description="Certificate for HTTPS (PEM).", examples=["web.pem"])
    key_file: FilePath | None = Field(default=None, description="Key of the certificate (PEM).", examples=["web.key"])

    @field_validator("hosts", mode="before")
    @classmethod
    def _tuple(cls, hosts: object) -> object:
        return tuple(hosts) if isinstance(hosts, list) else hosts

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, listen: str) -> str:
        host, colon, port = listen.rpartition(":")
        if not colon or not host or not (port.isascii() and port.isdigit()):
            raise ValueError("write HOST:PORT, such as 127.0.0.1:8090; [::]:8090 listens on all addresses")
        if ":" in host and not (host.startswith("[") and host.endswith("]")):
            raise ValueError("an IPv6 address must be in brackets, such as [::1]:8090")
        if len(port) > 5 or int(port) > 65535:
            raise ValueError("the port must be from 0 to 65535")
        return listen

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.token is not None and self.token_file is not None:
            raise ValueError("give token or token_file, not both")
        if self.switch_token is not None and self.switch_token_file is not None:
            raise ValueError("give switch_token or switch_token_file, not both")
        if self.token is not None and self.token == self.switch_token:
            raise ValueError("token and switch_token are the same: the token for reading must not switch the load")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together")
        has_token = self.token is not None or self.token_file is not None
        if self.auth == "token" and not has_token:
            raise ValueError('auth = "token" needs token or token_file')
        if self.auth == "none" and has_token:
            raise ValueError('auth = "none" and a token contradict each other')
        if not is_loopback(self.host) and not has_token and self.auth != "none":
            raise ValueError(
                "other machines can reach the address in listen: set token or token_file, "
                'or write auth = "none" to let everybody read'
            )
        return self

    @property
    def host(self) -> str:
        """The address to listen on, without brackets."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port to listen on; 0 picks a free one."""
        return int(self.listen.rpartition(":")[2])


class InfluxConfig(Section):
    """InfluxDB 1.x or 2.x, VictoriaMetrics, or anything else that takes line protocol over HTTP."""

    url: str = Field(description="`http://HOST:PORT` or `https://HOST:PORT`.", examples=["http://127.0.0.1:8086"])
    database: str = Field(default="tracer", min_length=1, description="Database of InfluxDB 1.x, or the bucket of 2.x.")
    org: str | None = Field(
        default=None,
        min_length=1,
        description="Organisation of InfluxDB 2.x. Set it to use the 2.x address.",
        examples=["home"],
    )
    username: str | None = Field(default=None, min_length=1, description="User name (HTTP Basic).", examples=["solar"])
    password: SecretStr | None = Field(
        default=None, min_length=1, description="Password, with `username`.", examples=["${INFLUX_PASSWORD}"]
    )
    password_file: FilePath | None = Field(
        default=None, description="File that contains the password.", examples=["influx.password"]
    )
    token: SecretStr | None = Field(
        default=None, min_length=1, description="Token of InfluxDB 2.x.", examples=["${INFLUX_TOKEN}"]
    )
    token_file: FilePath | None = Field(
        default=None, description="File that contains the token.", examples=["influx.token"]
    )
    batch_seconds: float = Field(default=10.0, ge=0.1, le=3600, description="Seconds between two batches.")
    buffer: int = Field(
        default=50_000,
        ge=100,
        le=10_000_000,
        description="Readings kept during an outage. Then the oldest are dropped.",
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        split_url(url, "http", "https")
        return url

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise ValueError("give password or password_file, not both")
        if self.token is not None and self.token_file is not None:
            raise ValueError("give token or token_file, not both")
        if self.username is not None and (self.token or self.token_file):
            raise ValueError("give username or a token, not both")
        _check_user(self)
        return self


class HistoryConfig(Section):
    """The database of past readings."""

    url: str = Field(
        default="sqlite:///history.db",
        description="`sqlite:///FILE` (relative to `state_directory`), or `postgresql://USER@HOST/DATABASE`.",
    )
    password: SecretStr | None = Field(
        default=None, min_length=1, description="Password for PostgreSQL.", examples=["${POSTGRES_PASSWORD}"]
    )
    password_file: FilePath | None = Field(
        default=None, description="File that contains the password for PostgreSQL.", examples=["postgres.password"]
    )
    raw_days: int = Field(default=14, ge=1, le=3650, description="Days for which every reading is kept.")
    five_minute_days: int = Field(
        default=730, ge=1, le=36500, description="Days for which five-minute values are kept."
    )
    flush_seconds: float = Field(default=60.0, ge=1, le=3600, description="Seconds between two transactions.")
    buffer: int = Field(
        default=100_000,
        ge=100,
        le=10_000_000,
        description="Readings kept while the database fails. Then the oldest are dropped.",
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
            return url
        wrong = ValueError("write sqlite:///FILE or postgresql://USER@HOST:PORT/DATABASE")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise wrong from None
        if parts.scheme not in ("postgresql", "postgres") or not parts.path.strip("/") or port == 0:
            raise wrong
        if parts.password is not None or any("password" in name for name in parse_qs(parts.query)):
            raise ValueError("the URL must not contain a password; use password_file")
        return url

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise ValueError("give password or password_file, not both")
        return self


class EnergyConfig(Section):
    """The energy counters."""

    flush_seconds: float = Field(
        default=60.0,
        ge=1,
        le=3600,
        description="Seconds between two writes of the totals: what a power cut loses.",
    )


class LogConfig(Section):
    """The log, on standard error."""

    format: Literal["text", "json"] = Field(default="text", description="One line an event, for people or as JSON.")
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe messages shown."
    )


class GatewayConfig(Section):
    """The whole file."""

    state_directory: FilePath = Field(
        default=Path(),
        description="Directory of the energy totals and the SQLite database. Relative to the directory of this file, "
        "which is the default; under systemd the default is the service's StateDirectory.",
    )
    time_zone: Zone | None = Field(
        default=None,
        description="Time zone in which a day begins, such as `Europe/Berlin`. Default: that of the machine.",
        examples=["Europe/Berlin"],
    )
    controllers: dict[Name, ControllerConfig] = Field(min_length=1, description="The controllers, by name.")
    mqtt: MqttConfig | None = None
    web: WebConfig | None = None
    influx: InfluxConfig | None = None
    history: HistoryConfig | None = None
    energy: EnergyConfig = EnergyConfig()
    log: LogConfig = LogConfig()

    @field_validator("controllers")
    @classmethod
    def _check_controllers(cls, controllers: dict[str, ControllerConfig]) -> dict[str, ControllerConfig]:
        lines = ((name, config.listen or (config.url or "",), config.id) for name, config in controllers.items())
        for name, reason in conflicts(lines):
            raise ValueError(f"controllers.{name}: {reason}")
        return controllers
