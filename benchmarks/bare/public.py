"""The same link on nats-py's public calls only: no override, no frame written by hand."""

from collections.abc import Coroutine
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks.bare.link import Handler, Link, Variant


def link_of(variant: Variant) -> Link:
    """Return a link of this kind, not connected yet."""
    return PublicLink() if variant == "public" else Link(direct=variant == "direct")


class PublicLink(Link):
    """Still one inbox for all PubAcks, one pull without end, and no task or future an append."""

    _process_msg = Client._process_msg  # noqa: SLF001  # undoes the override of Link

    async def listen(self, subject: str, handler: Handler) -> None:
        """Subscribe a plain function; the broker knows of it on return."""

        async def called(message: Msg) -> None:
            self.guarded(handler, message.subject.encode(), message.reply.encode(), message.data)

        await self.subscribe(subject, cb=called)  # pyright: ignore[reportUnknownMemberType]
        await self.flush()

    def send(self, subject: bytes, reply: str, body: bytes) -> None:
        """Publish a message without headers."""
        _at_once(self.publish(subject.decode(), body, reply=reply))

    def send_expecting(
        self, subject: bytes, reply: bytes, last: int, scope: bytes, body: bytes
    ) -> None:
        """Publish into the ledger if `last` is the newest sequence in `scope`."""
        headers = {
            "Nats-Expected-Last-Subject-Sequence": str(last),
            "Nats-Expected-Last-Subject-Sequence-Subject": scope.decode(),
        }
        _at_once(self.publish(subject.decode(), body, reply=reply.decode(), headers=headers))


def _at_once(publish: Coroutine[Any, Any, None]) -> None:
    """Run a publish that has no reason to wait: it only puts bytes into the client's buffer."""
    try:
        publish.send(None)
    except StopIteration:
        return
    raise BufferError("nats-py's buffer is full")
