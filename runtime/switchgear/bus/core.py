"""Core messages: at most once, stored nowhere; the live feed and requests between services."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from switchgear.bus.asking import Asking
from switchgear.bus.ledger import direct_answer
from switchgear.bus.port import Message
from switchgear.bus.raw import RawClient

PROGRESS = "SG_PROGRESS"
BARRIER = timedelta(seconds=5)
"""How long `subscribe` waits for the broker to know the subscription."""


class CoreMessages:
    """`port.Core` on the raw client."""

    def __init__(self, client: RawClient, asking: Asking) -> None:
        self._client = client
        self._asking = asking

    def publish(self, subject: str, data: bytes) -> None:
        """Send now. Dropped while the connection is down for long, or the message is larger than the broker takes."""
        self._client.publish_now(subject, data)

    async def request(self, subject: str, data: bytes, *, timeout: timedelta) -> bytes:
        """One answer. Raises Unavailable when nobody listens, nobody answers in time, or the connection breaks."""
        answer = await self._asking.once(subject, data, timeout.total_seconds())
        return answer.data

    async def subscribe(
        self, subject: str, receive: Callable[[Message], None], *, queue: str = ""
    ) -> CoreSubscription:
        """Receive what is published from now on; the broker knows of it when this returns, if it is reachable."""

        def take(on: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
            receive(Message(on.decode(), data, reply.decode(), headers))

        sid = self._client.subscribe_direct(subject, take, queue)
        await self._client.barrier(BARRIER.total_seconds())
        return CoreSubscription(self._client, sid)

    async def newest(self, subject: str) -> bytes | None:
        """The newest progress by a direct get, which permissions can confine. Raises ServerUnfit, Unavailable."""
        answer = await self._asking.read(f"$JS.API.DIRECT.GET.{PROGRESS}.{subject}")
        found = direct_answer(answer.headers, answer.data, PROGRESS)
        return None if found is None else found.data


class CoreSubscription:
    """`port.Subscription`."""

    def __init__(self, client: RawClient, sid: int) -> None:
        self._client = client
        self._sid = sid

    async def unsubscribe(self) -> None:
        """End it; what the broker sent before is still received."""
        await self._client.unsubscribe_direct(self._sid)
