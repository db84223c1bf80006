"""The NATS client with a fast lane: raw bytes to synchronous callbacks, and publishing without awaiting.

Above it stand all modules of this package; below it nats-py, whose connection, handshake, parser and reconnection
are kept. nats-py hands a message over through a header parser, a queue and a task, and publishes through awaits and
a regex per header: for acks, pulls and the live feed that is most of the cost. Its faults are mended here as well
(session expiry, cancelled flushes, raising callbacks, an end of reconnection); each override says which.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
import re
from collections.abc import Callable
from typing import Any, Final

from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription as NatsSubscription

from switchgear.bus.parsing import Direct, MessageParser

log = logging.getLogger("switchgear.bus")

MAX_BUFFERED: Final = 2 * 1024 * 1024
"""Bytes that may wait for a connection; what is published beyond them while it is down is dropped."""
MAX_UNSENT: Final = 64 * 1024 * 1024
"""Bytes that may wait for a slow socket before core messages and acks are dropped."""
FIRST_WAIT: Final = 0.02
"""Seconds before the second attempt to reconnect; doubles up to `LONGEST_WAIT`, with jitter."""
LONGEST_WAIT: Final = 0.25
"""Seconds between attempts to reconnect: a server's restart is noticed within them."""

_PING: Final = b"PING\r\n"
_FORBIDDEN: Final = re.compile(r'permissions violation for publish to "([^"]+)"')


def is_loopback(host: str | None) -> bool:
    """Whether the host is this machine: `localhost` or a loopback address."""
    if host is None:
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


# What is overridden below is private, so nats-py is pinned (>=2.16,<2.17), and a test compares the source around it.
class RawClient(Client):
    """A nats-py client whose direct subscriptions bypass queue, task and header parsing."""

    # nats-py leaves the type of these futures and tasks open.
    _pongs: list[asyncio.Future[bool]]
    _reading_task: asyncio.Task[None] | None
    _ping_interval_task: asyncio.Task[None] | None
    _flusher_task: asyncio.Task[None] | None

    def __init__(self) -> None:
        super().__init__()
        self._ps = MessageParser(self)
        self._loop = asyncio.get_running_loop()
        self._direct: dict[int, Direct] = {}
        self._kicked = False
        self._barriers: set[asyncio.Future[bool]] = set()
        self._retiring: set[asyncio.Task[None]] = set()
        self._attempts = 0
        self._forbidden: list[Callable[[str], None]] = []
        self._lost: list[Callable[[], None]] = []
        self._back: list[Callable[[], None]] = []
        self.ready = False
        """Connected, with all subscriptions in place: answers to what is sent now will arrive."""
        self.loopback_only = False
        """Refuse servers beyond loopback that a server advertises: they would be reached in clear text."""
        self.dropped = 0
        """Messages dropped because the connection was down or slow for too long."""

    # --- life of the connection

    def on_lost(self, heard: Callable[[], None]) -> None:
        """Call `heard` whenever the connection is lost, or closed."""
        self._lost.append(heard)

    def on_back(self, heard: Callable[[], None]) -> None:
        """Call `heard` whenever the connection is back and all subscriptions are in place again."""
        self._back.append(heard)

    def on_forbidden(self, heard: Callable[[str], None]) -> None:
        """Call `heard` with each subject, in lower case, that the server did not let this principal publish on."""
        self._forbidden.append(heard)

    def forget_listener(self, *heard: Callable[[], None]) -> None:
        """Call these no longer."""
        self._lost = [one for one in self._lost if one not in heard]
        self._back = [one for one in self._back if one not in heard]

    async def failed(self, error: Exception) -> None:
        """Log what nats-py reports. Never raises: an error callback that does ends the read loop for good."""
        if self._status == Client.CONNECTED:
            log.warning("bus.error", extra={"error": repr(error)})
        else:
            log.debug("bus.error", extra={"error": repr(error)})

    async def went(self) -> None:
        """Tell everybody that the connection is gone. Never raises: that would stop the reconnection."""
        self.ready = False
        for future in self._barriers:
            if not future.done():
                future.set_result(False)
        self._barriers.clear()
        if not self.is_closed:
            log.info("bus.disconnected")
        self._tell(self._lost)

    async def returned(self) -> None:
        """Tell everybody that the connection is back."""
        self._attempts = 0
        self.ready = True
        log.info("bus.reconnected")
        self._tell(self._back)

    def _tell(self, listeners: list[Callable[[], None]]) -> None:
        for heard in list(listeners):
            try:
                heard()
            except Exception:
                # One listener's fault must neither silence the others nor stop the reconnection.
                log.exception("bus.listener_failed")

    async def _process_op_err(self, e: Exception) -> None:
        """As nats-py's, but known at once: it tells its callback only when the old socket has closed."""
        self.ready = False
        await super()._process_op_err(e)

    async def _select_next_server(self) -> None:
        """Connect to any server: in turn, and while reconnecting without end, with short jittered waits."""
        while True:
            if self._attempts and self.options["allow_reconnect"]:
                wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(self._attempts, 8))
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
            failure: Exception = nats_errors.NoServersError()
            for _ in range(len(self._server_pool)):
                server = self._server_pool.pop(0)
                self._server_pool.append(server)
                self._attempts += 1
                if self._transport is not None:
                    # nats-py forgets the socket of an attempt that failed after TCP, without closing it.
                    self._transport.close()
                try:
                    await self._connect_to_server(server)
                except (OSError, nats_errors.Error, TimeoutError) as error:
                    failure = error
                    self._err = error
                    continue
                self._current_server = server
                return
            if not self.options["allow_reconnect"]:
                raise failure

    async def _attempt_reconnect(self) -> None:
        """As nats-py's, but no exception ends it: a token callback that raises once, say."""
        while not self.is_closed:
            try:
                await super()._attempt_reconnect()
            except Exception:
                log.exception("bus.reconnect_failed")
                self._status = Client.RECONNECTING
                await asyncio.sleep(LONGEST_WAIT)
            else:
                return

    async def _process_err(self, err_msg: str) -> None:
        """Log what the server reports, and reconnect where nats-py closes for good (nats.py #1019, #193).

        Errors that end the session (expiry, revocation) are followed by the end of the socket, which reconnects.
        """
        error = nats_errors.Error(f"nats: {err_msg.strip(chr(39))}")
        self._err = error
        self.stats["errors_received"] += 1
        log.warning("bus.server_error", extra={"error": str(error)})
        forbidden = _FORBIDDEN.search(err_msg)
        if forbidden is not None:
            for heard in self._forbidden:
                heard(forbidden[1])
        if "stale connection" in err_msg or "authentication expired" in err_msg:
            await self._process_op_err(error)

    async def _process_info(
        self,
        info: dict[str, Any],
        initial_connection: bool = False,  # noqa: FBT001, FBT002 - nats-py's signature
    ) -> None:
        """As nats-py's, without servers that would be reached in clear text."""
        if self.loopback_only and info.get("connect_urls"):
            kept = [url for url in info["connect_urls"] if is_loopback(url.rpartition(":")[0])]
            info = {**info, "connect_urls": kept}
        await super()._process_info(info, initial_connection)

    async def _process_pong(self) -> None:
        """As nats-py's, but a cancelled flush does not end the read loop (InvalidStateError)."""
        if self._pongs:
            future = self._pongs.pop(0)
            if not future.done():
                future.set_result(True)
        self._pongs_received += 1
        self._pings_outstanding = 0

    # --- receiving

    def subscribe_direct(self, subject: str, receive: Direct, queue: str = "") -> int:
        """Subscribe at once; `receive` is called from the read loop with raw bytes. Returns the subscription's id.

        Survives reconnects. `receive` must be quick; what it raises is logged.
        """
        self._sid += 1
        sid = self._sid
        # nats-py replays `_subs` after a reconnect; of this entry it uses only subject, queue and counters.
        self._subs[sid] = NatsSubscription(self, sid, subject=subject, queue=queue)
        self._direct[sid] = receive
        if self.is_connected:
            self.send(f"SUB {subject} {queue} {sid}\r\n".encode())
        return sid

    def redirect(self, sid: int, receive: Direct) -> None:
        """Hand what this subscription still receives to another callback."""
        if sid in self._direct:
            self._direct[sid] = receive

    def forget(self, sid: int) -> None:
        """Drop a subscription of a connection that is gone."""
        self._subs.pop(sid, None)
        self._direct.pop(sid, None)

    async def unsubscribe_direct(self, *sids: int) -> None:
        """End subscriptions; what the server sent before it heard of it is still received. Never raises."""
        if not self.is_connected:
            for sid in sids:
                self.forget(sid)
            return
        for sid in sids:
            if self._subs.pop(sid, None) is not None:
                self.send(f"UNSUB {sid}\r\n".encode())
        retired = self._loop.create_task(self._retire(sids))
        self._retiring.add(retired)
        retired.add_done_callback(self._retiring.discard)
        # Shielded: the last messages are received even when the caller is cancelled.
        await asyncio.shield(retired)

    async def _retire(self, sids: tuple[int, ...]) -> None:
        try:
            await self.barrier(timeout=5.0)
        except TimeoutError:
            log.warning("bus.unsubscribe_unconfirmed")
        for sid in sids:
            self._direct.pop(sid, None)

    def hand_over(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        """Take a message from the parser; those of subscriptions that are gone are dropped."""
        receive = self._direct.get(sid)
        if receive is None:
            return
        try:
            receive(subject, reply, data, headers)
        except Exception:
            # Whatever leaves the parser ends the read loop for good, without a reconnect.
            log.exception(
                "bus.receive_failed", extra={"subject": subject.decode("utf-8", "replace")}
            )

    # --- sending

    def send(self, command: bytes) -> bool:
        """Send a protocol command without awaiting; all of one turn of the loop leave in one write.

        While the connection is down it waits, within MAX_BUFFERED. Returns whether it was taken.
        """
        size = self._pending_data_size + len(command)
        if size > MAX_BUFFERED and (not self.is_connected or size > MAX_UNSENT):
            self._drop()
            return False
        self._pending.append(command)
        self._pending_data_size = size
        if not self._kicked:
            self._kicked = True
            self._loop.call_soon(self._write_out)
        return True

    def hurry(self) -> None:
        """Write what was sent in this turn now: somebody waits for the answer and nothing will join it."""
        if self._kicked:
            self._write_out()
            self._kicked = (
                True  # the turn's own write still comes, and finds nothing or what joined later
            )

    def publish_now(self, subject: str, data: bytes, reply: str = "") -> bool:
        """Publish without awaiting. Returns False where it was dropped (see `send`). The subject must be sound."""
        if len(data) > self._max_payload:
            self._drop()
            return False
        return self.send(
            b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), reply.encode(), len(data), data)
        )

    def _drop(self) -> None:
        self.dropped += 1
        if (
            self.dropped & (self.dropped - 1) == 0
        ):  # 1, 2, 4, 8, …: a flood is not logged one by one
            log.warning("bus.dropped", extra={"count": self.dropped})

    def _write_out(self) -> None:
        self._kicked = False
        if not self._pending or not self.is_connected or self._transport is None:
            return
        pending = b"".join(self._pending)
        self._pending = []
        self._pending_data_size = 0
        self._transport.write(pending)

    async def barrier(self, timeout: float) -> bool:
        """Wait until the server has taken all that was sent before. False: the connection was lost meanwhile.

        Unlike nats-py's flush, whose PING overtakes what is pending. Raises TimeoutError.
        """
        if not self.is_connected or self._transport is None:
            return False
        future: asyncio.Future[bool] = self._loop.create_future()
        self._barriers.add(future)
        future.add_done_callback(self._barriers.discard)
        self._write_out()
        self._pongs.append(future)
        self._transport.write(_PING)
        async with asyncio.timeout(timeout):
            return await asyncio.shield(future)

    # --- first connection, and what is known of the server

    def established(self) -> None:
        """The first connection stands: from now on it comes back by itself."""
        self.options["allow_reconnect"] = True
        self._attempts = 0
        self.ready = True

    def abandon(self) -> None:
        """The first connection failed: leave nothing open."""
        for task in (self._reading_task, self._ping_interval_task, self._flusher_task):
            if task is not None:
                task.cancel()
        if self._transport is not None:
            self._transport.close()
        self._status = Client.CLOSED

    def server_info(self) -> dict[str, Any]:
        """What the server introduced itself with."""
        return self._server_info

    def address(self) -> str:
        """Host and port of the server in use."""
        url = self.connected_url
        return "" if url is None else url.netloc.rpartition("@")[2]
