"""Durable consumers: lanes that agents pull, intakes that coordinators share.

Above it: agents' workers and coordinators. Deliveries are settled by publishing without waiting. `fetch`, `wait` and
`consume` never lose a message to a cancelled caller: what nobody took goes back with a nak.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Any, Final

from switchgear.bus import frames, port
from switchgear.bus.asking import ApiError
from switchgear.bus.durable import LEDGER, STREAMS, consumer_info, ensure_durable
from switchgear.bus.pulling import MISSING, Link, Pulling
from switchgear.contract import limits, subjects
from switchgear.contract.stored import Stored
from switchgear.errors import NotFound, Unavailable, UsageError

MAX_ACK_PENDING: Final = 5000
"""Deliveries of one consumer that may be unsettled, over all who share it."""
MAX_WAITING: Final = 16_384
"""Open pull requests on one consumer: every idle instance keeps one (the server's default is 512)."""
FETCH_PATIENCE: Final = 2.0
"""Seconds that `fetch` waits for the broker to say what there is."""


class Delivery:
    """A message that a consumer handed over; see `port.Delivery`."""

    __slots__ = ("_client", "_settled", "ack_subject", "deliveries", "stored")

    def __init__(
        self,
        link: Link,
        settled: Callable[[], None] | None,
        subject: bytes,
        reply: bytes,
        data: bytes,
        headers: bytes,
    ) -> None:
        part = reply.split(b".")
        at = 6 if len(part) >= frames.LONG_FORM else 4
        self.stored = Stored(
            subject.decode(),
            int(part[at + 1]),
            int(part[at + 3]),
            headers if headers[-4:] == b"\r\n\r\n" else frames.whole(headers),
            data,
        )
        self.deliveries = int(part[at])
        self.ack_subject = reply.decode()
        self._client = link.client
        self._settled: Callable[[], None] | None = settled or _nothing

    def ack(self) -> None:
        """Done: never deliver it again."""
        self._settle("+ACK")

    def nak(self, delay: timedelta | None = None) -> None:
        """Not done: deliver it again, now or after the delay (which keeps its place in flight)."""
        if delay is None:
            self._settle("-NAK")
        else:
            self._settle(f'-NAK {{"delay":{int(delay.total_seconds() * 1e9)}}}')

    def in_progress(self) -> None:
        """Still at it: the lease starts anew."""
        if self._settled is not None:
            self._client.send(f"PUB {self.ack_subject} 4\r\n+WPI\r\n".encode())

    def term(self) -> None:
        """Never deliver it again, though it is not done."""
        self._settle("+TERM")

    def _settle(self, verb: str) -> None:
        settled, self._settled = self._settled, None
        if settled is None:
            return
        self._client.send(f"PUB {self.ack_subject} {len(verb)}\r\n{verb}\r\n".encode())
        settled()


def _nothing() -> None:
    """Settling a delivery that nobody counts."""


class Work:
    """The lanes of the ledger, and the intakes of it, the timers and the topics; see `port.Work`."""

    def __init__(
        self,
        link: Link,
        *,
        lane_ack_wait: timedelta = limits.LANE_ACK_WAIT,
        intake_ack_wait: timedelta = limits.INTAKE_ACK_WAIT,
        max_ack_pending: int = MAX_ACK_PENDING,
    ) -> None:
        self._link = link
        self._lane_ack_wait = lane_ack_wait
        self._intake_ack_wait = intake_ack_wait
        self._max_ack_pending = max_ack_pending
        self._intakes: dict[tuple[str, str], dict[str, Any]] = {}
        self._fetchers: dict[str, _Fetcher] = {}

    async def ensure_lane(
        self, capability: str, pool: str, priority: str, *, start: int | None = None
    ) -> None:
        """Create the lane's consumer, or bring it up to date. Raises ServerUnfit, Unavailable."""
        name = subjects.lane_consumer(capability, pool, priority)
        config = self._config(name, self._lane_ack_wait, start)
        config["filter_subject"] = subjects.lane_filter(capability, pool, priority)
        await ensure_durable(self._link, LEDGER, config)

    async def lanes(self) -> list[str]:
        """Names of all lanes' consumers. Raises Unavailable."""
        found: list[str] = []
        while True:
            answer = await self._link.asking.api(f"CONSUMER.NAMES.{LEDGER}", {"offset": len(found)})
            page: list[str] = answer.get("consumers") or []
            found += page
            if not page or len(found) >= answer.get("total", 0):
                return [name for name in found if subjects.parse_lane(name)]

    async def backlog(self, name: str, *, source: port.Source = "ledger") -> port.Backlog | None:
        """What the consumer has before it; None where there is none. Raises Unavailable."""
        info = await consumer_info(self._link, STREAMS[source], name)
        if info is None:
            return None
        floor = int(info["ack_floor"]["stream_seq"])
        known = self._intakes.get((STREAMS[source], name))
        if known is not None and floor and source != "timers":
            # lost and made again it goes on from here: not everything may come as new
            begin = {"deliver_policy": "by_start_sequence", "opt_start_seq": floor + 1}
            self._intakes[STREAMS[source], name] = known | begin
        reached = int(info["delivered"]["stream_seq"])
        return port.Backlog(int(info["num_pending"]), int(info["num_ack_pending"]), floor, reached)

    async def remove(self, name: str, *, source: port.Source = "ledger") -> None:
        """Delete the consumer, if there is one. Raises Unavailable.

        Another bus that created it and still consumes it takes this for a loss, and makes it again.
        """
        stream = STREAMS[source]
        self._intakes.pop((stream, name), None)
        try:
            await self._link.asking.api(f"CONSUMER.DELETE.{stream}.{name}")
        except ApiError as error:
            if error.number not in MISSING:
                raise

    async def ensure_intake(
        self,
        name: str,
        filters: Iterable[str],
        *,
        source: port.Source = "ledger",
        start: int | None = None,
    ) -> None:
        """Create a durable intake, or bring it up to date; `consume` makes it again if it is lost."""
        if source == "timers" and start is not None:
            raise UsageError(
                "an intake of the timers has no start", why="what is acked leaves their stream"
            )
        config = self._config(name, self._intake_ack_wait, start)
        wanted = list(filters)
        if len(wanted) == 1:
            config["filter_subject"] = wanted[0]
        else:
            config["filter_subjects"] = wanted
        stream = STREAMS[source]
        await ensure_durable(self._link, stream, config)
        if start is not None or (stream, name) not in self._intakes:
            self._intakes[stream, name] = config

    def _config(self, name: str, ack_wait: timedelta, start: int | None) -> dict[str, Any]:
        begin: dict[str, Any] = {"deliver_policy": "all"}
        if start is not None:
            begin = {"deliver_policy": "by_start_sequence", "opt_start_seq": max(1, start)}
        return {
            "name": name,
            "durable_name": name,
            **begin,
            "ack_policy": "explicit",
            "ack_wait": int(ack_wait.total_seconds() * 1e9),
            "max_deliver": -1,
            "max_ack_pending": self._max_ack_pending,
            "max_waiting": MAX_WAITING,
        }

    async def fetch(self, lane: str, batch: int) -> list[port.Delivery]:
        """Up to `batch` messages that are there now. Raises NotFound, Unavailable."""
        fetcher = self._fetchers.get(lane)
        if fetcher is None:
            fetcher = self._fetchers[lane] = _Fetcher(self._link, lane)
        return await fetcher.fetch(batch)

    def wait(
        self, lanes: Iterable[str], batch: int, receive: Callable[[port.Delivery], None]
    ) -> _Waiting:
        """Waiting pulls on each lane until `end`; a lane that does not exist yet is tried until it does."""
        link = self._link

        def take(subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
            receive(Delivery(link, None, subject, reply, data, headers))

        return _Waiting(link, [Pulling(link, LEDGER, lane, take, credit=batch) for lane in lanes])

    def consume(
        self,
        name: str,
        receive: Callable[[port.Delivery], None],
        *,
        in_flight: int,
        source: port.Source = "ledger",
    ) -> _Consuming:
        """Everything the intake has, without end; at most `in_flight` unsettled."""
        stream = STREAMS[source]

        async def revive() -> None:
            config = self._intakes.get((stream, name))
            if config is not None:
                await ensure_durable(self._link, stream, config)

        return _Consuming(self._link, stream, name, receive, in_flight, revive)


class _Waiting:
    """Waiting pulls on several lanes; see `port.Pulls`."""

    def __init__(self, link: Link, pulls: list[Pulling]) -> None:
        self._link = link
        self._pulls = pulls
        for pull in pulls:
            pull.start()

    async def end(self) -> None:
        """Stop asking. What was already sent to us is received before this returns, or, cancelled, soon after."""
        sids = [sid for pull in self._pulls for sid in pull.halt()]
        self._pulls = []
        await self._link.client.unsubscribe_direct(*sids)


class _Consuming:
    """A running consumption of an intake; see `port.Consuming`."""

    def __init__(
        self,
        link: Link,
        stream: str,
        name: str,
        receive: Callable[[port.Delivery], None],
        in_flight: int,
        revive: Callable[[], Awaitable[None]],
    ) -> None:
        self._link = link
        self._receive = receive
        self._ended = False
        self._pulling = Pulling(link, stream, name, self._take, credit=in_flight, revive=revive)
        self._settled = self._pulling.give_back
        self._pulling.start()

    def _take(self, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        delivery = Delivery(self._link, self._settled, subject, reply, data, headers)
        if self._ended:
            delivery.nak()  # at once to whoever consumes next, instead of after the lease
        else:
            self._receive(delivery)

    async def end(self) -> None:
        """Stop receiving; what still arrives goes back."""
        self._ended = True
        await self._pulling.stop()


class _Fetcher:
    """Pulls without waiting, one at a time on its lane: a message says which lane it is of, not which request."""

    _inboxes = 0

    def __init__(self, link: Link, lane: str) -> None:
        self._link = link
        self._lane = lane
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{LEDGER}.{lane}"
        self._turn = asyncio.Lock()
        self._sid = 0
        self._inbox = ""
        self._found: list[port.Delivery] | None = None
        self._wanted = 0
        self._end: asyncio.Future[int] | None = None

    async def fetch(self, batch: int) -> list[port.Delivery]:
        """See `port.Work.fetch`."""
        async with self._turn:
            client = self._link.client
            if not client.ready:
                raise Unavailable("the connection to the broker is down", retry_after=0.25)
            if not self._sid:
                _Fetcher._inboxes += 1
                self._inbox = f"{self._link.inbox}f.{_Fetcher._inboxes}"
                self._sid = client.subscribe_direct(self._inbox, self._received)
                client.on_lost(self._lost)
            self._end = end = asyncio.get_running_loop().create_future()
            found: list[port.Delivery] = []
            self._found = found
            self._wanted = batch
            client.publish_now(self._subject, b'{"batch":%d,"no_wait":true}' % batch, self._inbox)
            try:
                async with asyncio.timeout(FETCH_PATIENCE):
                    status = await end
            except TimeoutError:
                self._drop_inbox()
                if not found:
                    raise Unavailable(f"the broker did not answer a pull on {self._lane}") from None
                status = 0
            except asyncio.CancelledError:
                self._drop_inbox()
                for delivery in found:
                    delivery.nak()
                raise
            finally:
                self._found = self._end = None
        if found or status in {0, frames.NOTHING, frames.OVER}:
            return found
        return await self._explain(status)

    def _drop_inbox(self) -> None:
        """What still comes on this inbox goes back."""
        client, sid = self._link.client, self._sid
        self._sid = 0
        if not sid:
            return
        client.redirect(sid, self._late)
        client.forget_listener(self._lost)
        retired = asyncio.get_running_loop().create_task(client.unsubscribe_direct(sid))
        _retiring.add(retired)
        retired.add_done_callback(_retiring.discard)

    async def _explain(self, status: int) -> list[port.Delivery]:
        if status == frames.NOBODY and await consumer_info(self._link, LEDGER, self._lane) is None:
            raise NotFound(
                f"no lane {self._lane}",
                fix="start a coordinator; it creates the lanes of each agent",
            )
        raise Unavailable(f"nobody serves the lane {self._lane} now", retry_after=0.25)

    def _received(self, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        end, found = self._end, self._found
        if reply:
            delivery = Delivery(self._link, None, subject, reply, data, headers)
            if end is None or end.done() or found is None:
                delivery.nak()
                return
            found.append(delivery)
            if len(found) >= self._wanted:
                end.set_result(0)
        elif end is not None and not end.done():
            end.set_result(frames.status(headers))

    def _late(self, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        if reply:
            Delivery(self._link, None, subject, reply, data, headers).nak()

    def _lost(self) -> None:
        if self._sid:
            self._link.client.forget(self._sid)
            self._sid = 0
            self._link.client.forget_listener(self._lost)
        if self._end is not None and not self._end.done():
            self._end.set_result(-1)


_retiring: set[asyncio.Task[None]] = set()
