"""The connection to the mesh: `connect` checks what is on the other side and gives the bus with all its parts.

The first attempt fails fast, with what to do about it; afterwards the connection comes back by itself, for ever.
Nothing beyond loopback is ever sent in clear text, unless that is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import ssl
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import msgspec
from nats import errors as nats_errors

from switchgear.bus.asking import Asking
from switchgear.bus.blobs import ObjectBlobs
from switchgear.bus.consumer import MAX_ACK_PENDING, Work
from switchgear.bus.core import CoreMessages, CoreSubscription
from switchgear.bus.documents import StreamDocuments
from switchgear.bus.ledger import StreamLedger
from switchgear.bus.losses import lost_name
from switchgear.bus.monitoring import sync_interval
from switchgear.bus.port import Message, ServerFacts
from switchgear.bus.publisher import WINDOW, Publisher
from switchgear.bus.pulling import Link
from switchgear.bus.raw import LONGEST_WAIT, RawClient, is_loopback, log
from switchgear.bus.registry_stream import StreamAnnouncements
from switchgear.bus.streams import StreamSettings, ensure_streams
from switchgear.bus.timers import StreamTimers
from switchgear.bus.topics import StreamTopics
from switchgear.contract import limits, subjects
from switchgear.errors import ClearTextRefused, ConfigError, ServerUnfit, Unavailable

MINIMUM: Final = (2, 12, 6)
"""The oldest nats-server with schedules, compare-and-set over a subject filter, and the spoofing fix."""
ALLOW_CLEAR_TEXT: Final = "SWITCHGEAR_ALLOW_CLEAR_TEXT"
PING_INTERVAL: Final = 5
"""Seconds between signs of life; after two without an answer the connection counts as dead."""
LAST_WORDS: Final = 1.0
"""Seconds that `close` waits for answers, and for the broker to take what was published."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to connect, and how the bus behaves."""

    tls: ssl.SSLContext | None = None
    """For tls:// URLs; None: the system's certificates."""
    token: Callable[[], str] | None = None
    """Gives the identity token; asked at each (re)connect, on the event loop: return a cached value."""
    allow_clear_text: bool | None = None
    """Permit nats:// beyond loopback; None: the environment variable SWITCHGEAR_ALLOW_CLEAR_TEXT says."""
    connect_timeout: timedelta = timedelta(seconds=2)
    """How long the first attempt may take, over all servers, and each later one."""
    window: int = WINDOW
    """Publishes into streams without an answer; more wait in order."""
    lane_ack_wait: timedelta = limits.LANE_ACK_WAIT
    """The lease on lanes that this bus creates."""
    intake_ack_wait: timedelta = limits.INTAKE_ACK_WAIT
    """How long intakes that this bus creates wait for a dead replica."""
    max_ack_pending: int = MAX_ACK_PENDING
    """Unsettled deliveries of one lane or intake, mesh-wide."""
    streams: StreamSettings = StreamSettings()
    """Sizes and replicas of streams that this bus creates."""
    monitoring_url: str = ""
    """The server's monitoring address (http://host:8222): the only place that tells its sync interval."""


DEFAULTS: Final = Options()


class NatsBus:
    """`port.Bus` over one connection; made by `connect`."""

    def __init__(self, client: RawClient, name: str, principal: str, options: Options) -> None:
        # The random part keeps other connections of the principal from guessing where answers go.
        inbox = f"_I_{principal}.{os.urandom(9).hex()}."
        asking = Asking(client, inbox)
        publisher = Publisher(client, inbox, window=options.window)
        link = Link(client, inbox, asking, publisher)
        self.name = name
        self.link = link
        """The parts below, for `serve_micro` and tests."""
        self.ledger = StreamLedger(link)
        self.work = Work(
            link,
            lane_ack_wait=options.lane_ack_wait,
            intake_ack_wait=options.intake_ack_wait,
            max_ack_pending=options.max_ack_pending,
        )
        self.core = CoreMessages(client, asking)
        self.announcements = StreamAnnouncements(link)
        self.timers = StreamTimers(link)
        self.blobs = ObjectBlobs(link)
        self.documents = StreamDocuments(link)
        self.topics = StreamTopics(link)
        self._client = client
        self._options = options

    async def ensure_streams(self) -> None:
        """Create or upgrade the streams (coordinators). Raises ServerUnfit, Unavailable."""
        await ensure_streams(self.link.asking, self._options.streams)

    async def watch_losses(
        self, receive: Callable[[str], None], *, queue: str = ""
    ) -> CoreSubscription:
        """Hear whose connections end, if the server's configuration exports that (see nats.conf)."""

        def hear(message: Message) -> None:
            name = lost_name(message.data)
            if name:
                receive(name)

        return await self.core.subscribe(subjects.LOSSES, hear, queue=queue)

    async def facts(self) -> ServerFacts:
        """What the broker says of itself, now. Raises Unavailable."""
        before = time.perf_counter()  # uvloop's clock counts whole milliseconds
        try:
            reached = await self._client.barrier(2.0)
        except TimeoutError:
            reached = False
        if not reached:
            raise Unavailable("the connection to the broker is down")
        rtt = timedelta(seconds=time.perf_counter() - before)
        info = self._client.server_info()
        return ServerFacts(
            name=str(info.get("server_name", "")),
            version=str(info.get("version", "")),
            address=self._client.address(),
            max_payload=self._client.max_payload,
            jetstream=bool(info.get("jetstream")),
            sync_interval=await sync_interval(
                self._options.monitoring_url, str(info.get("server_id", ""))
            ),
            rtt=rtt,
        )

    def on_reconnect(self, heard: Callable[[], None]) -> None:
        """Call `heard` after each reconnect: time to read what may have been missed."""
        self._client.on_back(heard)

    async def close(self) -> None:
        """Flush what was published, then leave. Never raises for a dead broker."""
        if self._client.is_closed:
            return
        if self._client.ready:
            await self.link.publisher.settle(LAST_WORDS)
            with contextlib.suppress(TimeoutError):
                await self._client.barrier(LAST_WORDS)
        self.link.publisher.close()
        try:
            await self._client.close()
        except (OSError, RuntimeError, nats_errors.Error) as error:  # uvloop: a closed transport
            log.debug("bus.close_failed", extra={"error": repr(error)})
        self.link.asking.close()


async def connect(
    url: str,
    *,
    name: str | None = None,
    principal: str = "local",
    options: Options = DEFAULTS,
    lane_ack_wait: timedelta | None = None,
    intake_ack_wait: timedelta | None = None,
) -> NatsBus:
    """Connect to the mesh at this URL (several: separated by commas), check that it can carry a ledger.

    The bus's name, which entries name as writer, is `name` (None: the host's) and a random part: two processes
    of one name must never pass for one holder. `principal` names the private inbox that broker permissions grant.
    The two ack waits overrule those of the options. Raises Unavailable, ClearTextRefused, ServerUnfit, ConfigError.
    """
    if lane_ack_wait is not None:
        options = msgspec.structs.replace(options, lane_ack_wait=lane_ack_wait)
    if intake_ack_wait is not None:
        options = msgspec.structs.replace(options, intake_ack_wait=intake_ack_wait)
    name = _instance_name(name)
    subjects.token(principal, "principal")
    servers = [_server(one.strip()) for one in url.split(",")]
    encrypted = all(server.scheme == "tls" for server in servers)
    clear_text_allowed = _clear_text_allowed(options)
    if not encrypted and not clear_text_allowed:
        _refuse_clear_text(servers)
    client = RawClient()
    client.loopback_only = not encrypted and not clear_text_allowed
    await _first_connect(client, servers, name, options, encrypted=encrypted)
    bus = NatsBus(client, name, principal, options)
    try:
        await _check(bus, client)
    except BaseException:
        await bus.close()
        raise
    return bus


async def _first_connect(
    client: RawClient, servers: list[SplitResult], name: str, options: Options, *, encrypted: bool
) -> None:
    seconds = options.connect_timeout.total_seconds()
    tls: dict[str, Any] = {}
    if encrypted:
        # Without handshake_first nats-py would send the token in clear text to a server without TLS.
        tls = {"tls": options.tls or ssl.create_default_context(), "tls_handshake_first": True}
    try:
        async with asyncio.timeout(seconds):
            await client.connect(
                [server.geturl() for server in servers],
                name=name,
                error_cb=client.failed,
                disconnected_cb=client.went,
                reconnected_cb=client.returned,
                # nats-py would retry bad credentials for ever; reconnecting is switched on below.
                allow_reconnect=False,
                connect_timeout=seconds,  # pyright: ignore[reportArgumentType] - passed on to wait_for
                reconnect_time_wait=LONGEST_WAIT,  # pyright: ignore[reportArgumentType] - passed on to sleep
                max_reconnect_attempts=-1,
                ping_interval=PING_INTERVAL,
                max_outstanding_pings=2,
                dont_randomize=len(servers) == 1,
                token=options.token,
                **tls,
            )
    except (OSError, nats_errors.Error, TimeoutError) as error:
        client.abandon()
        shown = ", ".join(_shown(server) for server in servers)
        raise Unavailable(
            f"no connection to {shown}",
            why=_reason(error, seconds),
            fix=f"start the mesh (`switchgear dev`), or check that {shown} is right: `switchgear doctor`",
        ) from error
    except BaseException:
        client.abandon()
        raise
    client.established()


async def _check(bus: NatsBus, client: RawClient) -> None:
    info = client.server_info()
    version = str(info.get("version", ""))
    match = re.match(r"v?(\d+)\.(\d+)\.(\d+)", version)
    if match is None or tuple(int(part) for part in match.groups()) < MINIMUM:
        wanted = ".".join(str(part) for part in MINIMUM)
        raise ServerUnfit(
            f"nats-server {version or 'of an unknown version'}",
            why=f"{wanted} is the oldest that fits",
        )
    if not info.get("jetstream"):
        try:
            # This server may serve a cluster's JetStream without running it.
            await bus.link.asking.api("INFO", seconds=2.0)
        except (Unavailable, ServerUnfit) as error:
            raise ServerUnfit("the broker has no JetStream", why=str(error)) from error


def _server(url: str) -> SplitResult:
    parts = urlsplit(url if "://" in url else f"nats://{url}")
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in {"nats", "tls"} or not parts.hostname or port == -1:
        raise ConfigError(
            f"{_shown(parts)!r} is not the URL of a NATS server",
            fix="write it like nats://127.0.0.1:4222 or tls://host",
        )
    return parts


def _shown(server: SplitResult) -> str:
    """The URL without user and password."""
    return server._replace(netloc=server.netloc.rpartition("@")[2]).geturl()


def _clear_text_allowed(options: Options) -> bool:
    if options.allow_clear_text is not None:
        return options.allow_clear_text
    return os.environ.get(ALLOW_CLEAR_TEXT, "") not in {"", "0", "false"}


def _refuse_clear_text(servers: list[SplitResult]) -> None:
    for server in servers:
        if server.scheme != "tls" and not is_loopback(server.hostname):
            raise ClearTextRefused(
                f"{_shown(server)} is not on this machine, and the connection would not be encrypted"
            )


def _reason(error: BaseException, seconds: float) -> str:
    if isinstance(error, TimeoutError):
        return f"nobody answered within {seconds:g} s"
    text = str(error) or type(error).__name__
    if "uthorization" in text:
        return "the broker refused the credentials"
    return text


def _instance_name(name: str | None) -> str:
    if name is not None:
        return f"{subjects.token(name, 'connection name')[:48]}-{os.urandom(5).hex()}"
    slug = re.sub("[^a-z0-9-]+", "-", socket.gethostname().lower()).strip("-")[:48]
    return f"{slug or 'host'}-{os.urandom(5).hex()}"
