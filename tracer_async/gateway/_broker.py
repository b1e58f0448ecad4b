"""The connection to the MQTT broker: opens it, closes it, and says in words why it failed."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import NamedTuple, TypeVar

from aiomqtt import Client, MqttCodeError, MqttError, ProtocolVersion, Will
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from tracer_async.gateway._error_text import error_text
from tracer_async.gateway.config import MqttConfig

__all__ = [
    "BrokerError",
    "Outgoing",
    "broker_connection",
    "client_id",
    "failure",
    "publish",
    "publish_all",
    "subscribe",
]

T = TypeVar("T")

_log = logging.getLogger(__name__)

# Everything that paho logs is raised, too, and is reported once from there.
_paho_log = logging.getLogger(f"{__name__}.paho")
_paho_log.setLevel(logging.CRITICAL)

# The broker publishes the last will after one and a half times this many seconds without a packet.
_KEEPALIVE = 15
_TIMEOUT = 5.0
_CLOSING = 1.0
# Attempts to connect that nobody waits for any more, for at most `_TIMEOUT` and `_CLOSING`.
_abandoned: set[asyncio.Task[None]] = set()
_VERDICT = 0.2

# Messages with QoS 1 that wait for their confirmation at the same time. Mosquitto and paho allow 20. With more, paho
# would keep some back, and they would no longer be in order with the messages with QoS 0.
_IN_FLIGHT = 16

# Bytes of a message that the broker may pass on. Commands are shorter. It drops larger ones, which others publish on
# the topic of a command, instead of this process having to keep up to 256 MB in memory.
_MAX_PACKET = 64 * 1024

_UNSPECIFIED = 0x80
_SESSION_TAKEN_OVER = 0x8E
_REFUSED = {
    0x86: "it refuses the user name or password",
    0x87: "it does not authorise this client. Check user name and password",
}


class BrokerError(Exception):
    """The broker cannot be used; the text says why."""


def client_id(config: MqttConfig) -> str:
    """Return the client ID, which only one client of a broker can have at a time."""
    return config.client_id or f"tracer-async-{config.prefix}"


@asynccontextmanager
async def broker_connection(config: MqttConfig, will: Will) -> AsyncIterator[Client]:
    """Connect with a clean start and a session that ends with the connection, so that the broker queues no command.

    Raises BrokerError, MqttError and OSError: `failure` puts them into words.
    """
    context = await asyncio.to_thread(_tls_context, config) if config.tls else None
    await _probe(config, context)
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 0
    properties.MaximumPacketSize = _MAX_PACKET
    client = _Connection(
        config.host,
        config.port,
        identifier=client_id(config),
        protocol=ProtocolVersion.V5,
        clean_start=True,
        properties=properties,
        username=config.username,
        password=None if config.password is None else config.password.get_secret_value(),
        tls_context=context,
        will=will,
        keepalive=_KEEPALIVE,
        timeout=_TIMEOUT,
        max_queued_incoming_messages=1000,
        # Otherwise a small message may wait 40 ms for the acknowledgement of the one before it.
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        logger=_paho_log,
    )
    await _enter(client)
    try:
        yield client
    finally:
        await _close(client)


class Outgoing(NamedTuple):
    """A retained message."""

    topic: str
    payload: bytes
    expiry: int | None = None
    """Seconds after which the broker deletes it; None: never."""


class _Connection(Client):
    """A client that can queue a message without a task that waits for it."""

    def enqueue(self, message: Outgoing) -> None:
        """Queue a message with QoS 0. If the connection is lost, the next `publish` raises.

        aiomqtt has no such call. Its own costs two tasks, which is more than all other work for a message.
        """
        properties = None if message.expiry is None else _expiry(message.expiry)
        self._client.publish(message.topic, message.payload, 0, True, properties)


async def publish(client: Client, message: Outgoing, *, qos: int) -> None:
    """Publish a message.

    With QoS 0 this returns when it was written to the socket, with QoS 1 when the broker has confirmed it.
    """
    properties = None if message.expiry is None else _expiry(message.expiry)
    await _uncancelled(client.publish(message.topic, message.payload, qos, True, properties))


async def publish_all(client: Client, messages: Sequence[Outgoing], *, qos: int) -> None:
    """Publish messages in their order, without waiting for one before the next. With QoS 1, 16 wait at a time."""
    if not qos and isinstance(client, _Connection):
        # They are written in this order, so the last one tells for all.
        for message in messages[:-1]:
            client.enqueue(message)
        messages = messages[-1:]
    # aiomqtt warns of more waiting calls than this.
    client.pending_calls_threshold = max(client.pending_calls_threshold, len(messages) + _IN_FLIGHT)
    limit = asyncio.Semaphore(_IN_FLIGHT)

    async def publish_one(message: Outgoing) -> None:
        async with limit:
            await publish(client, message, qos=qos)

    try:
        async with asyncio.TaskGroup() as tasks:
            for message in messages:
                tasks.create_task(publish_one(message) if qos else publish(client, message, qos=qos))
    except ExceptionGroup as group:
        # They fail for the same reason.
        first = group.exceptions[0]
        raise first from first.__cause__


async def subscribe(client: Client, topic: str, options: SubscribeOptions) -> None:
    """Subscribe. Logs a warning if the broker does not allow it."""
    for code in await _uncancelled(client.subscribe(topic, options=options)):
        if isinstance(code, ReasonCode) and code.is_failure:
            _log.warning("mqtt: the broker refuses the subscription to %s: %s", topic, code)


async def _uncancelled(call: Awaitable[T]) -> T:
    """Await *call*; raise CancelledError if the task was cancelled meanwhile.

    In Python 3.11 `asyncio.wait_for`, which aiomqtt uses, forgets that it was cancelled if its result came at the same
    time. A loop that publishes would never end.
    """
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()
    result = await call
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError
    return result


@cache
def _expiry(seconds: int) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.MessageExpiryInterval = seconds
    return properties


async def _probe(config: MqttConfig, context: ssl.SSLContext | None) -> None:
    """Find out whether the broker can be reached, and whether both sides accept the other's certificate.

    aiomqtt connects in a thread, which cannot be cancelled: a broker that does not answer would delay the end of the
    service. And paho leaves a socket open whose handshake failed.
    """
    try:
        async with asyncio.timeout(_TIMEOUT):
            reader, writer = await asyncio.open_connection(config.host, config.port, ssl=context)
    except TimeoutError:
        raise BrokerError(f"no answer within {_TIMEOUT:g} s") from None
    try:
        if context is not None:
            # With TLS 1.3 a broker judges the client's certificate after the client has finished its handshake.
            with suppress(TimeoutError):
                async with asyncio.timeout(_VERDICT):
                    await reader.read(1)
                    raise BrokerError("it closed the connection after the TLS handshake")
    finally:
        # Not closed in order: a broker that does not answer would delay this by 30 s with TLS.
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


async def _enter(client: Client) -> None:
    """Connect. If this fails or is cancelled, no connection stays open.

    aiomqtt would leave one open that is made after that, and it would take the session away from the next connection
    with the same client ID. Its call must come to its own end: if it is cancelled, it cannot close the connection.
    """
    entering = asyncio.ensure_future(client.__aenter__())
    try:
        await asyncio.shield(entering)
    except BaseException:
        closing = asyncio.create_task(_abandon(client, entering))
        _abandoned.add(closing)
        closing.add_done_callback(_abandoned.discard)
        await asyncio.wait([closing], timeout=_CLOSING)
        raise


async def _abandon(client: Client, entering: asyncio.Future[Client]) -> None:
    with suppress(Exception):
        await entering
    await _close(client)


async def _close(client: Client) -> None:
    with suppress(TimeoutError, MqttError):
        async with asyncio.timeout(_CLOSING):
            await client.__aexit__(None, None, None)


def _tls_context(config: MqttConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
    except OSError as error:
        raise BrokerError(f"ca_file {config.ca_file}: {error}") from None
    if config.cert_file is not None:
        try:
            context.load_cert_chain(config.cert_file, config.key_file)
        except OSError as error:
            raise BrokerError(f"cert_file {config.cert_file}, key_file {config.key_file}: {error}") from None
    return context


def failure(error: BaseException, config: MqttConfig, *, flapping: bool = False) -> str:
    """Return in one line why the broker cannot be used. *flapping*: it closed the last connections soon as well."""
    broker = f"broker {config.host}:{config.port}"
    # What ended the connection is the cause of the error that a waiting call raises.
    code = next((each for each in (error, error.__cause__) if isinstance(each, MqttCodeError)), None)
    if code is None:
        return f"{broker}: {error_text(error)}"
    reason = code.rc.value if isinstance(code.rc, ReasonCode) else None
    if reason == _SESSION_TAKEN_OVER:
        return (
            f"{broker}: another client has connected with the client ID {client_id(config)!r}. "
            "Give each gateway its own client_id and prefix"
        )
    if reason == _UNSPECIFIED:  # the socket was closed. Mosquitto 2.0.11 does not say that another client took over
        again = (
            f" soon after it was made, again. Perhaps another client has the client ID {client_id(config)!r}, "
            "too: give each gateway its own client_id and prefix"
        )
        return f"{broker}: the connection was closed{again if flapping else ''}"
    return f"{broker}: {_REFUSED.get(reason or 0, str(code))}"
