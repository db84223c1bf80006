"""Requests: core ones asked once, and reads of the broker's API that are asked again until an answer comes.

All answers arrive on one wildcard inbox of the connection, whose name nobody can guess, and end a future by token.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from switchgear.bus import frames
from switchgear.bus.raw import RawClient
from switchgear.errors import SwitchgearError, Unavailable, UsageError

PATIENCE: Final = 5.0
"""Seconds that a read of the broker's API waits for an answer, a reconnect included."""
NOBODY_PATIENCE: Final = 2.0
"""Seconds that such a read is repeated while nobody answers it: JetStream starts, or a leader is elected."""
_REPEAT: Final = 0.1


class Answer(NamedTuple):
    """What came back: the raw header block and the payload."""

    headers: bytes
    data: bytes


class ApiError(SwitchgearError):
    """An error that JetStream's API reported; `number` is its `err_code`."""

    code = "SG1302"

    def __init__(self, subject: str, number: int, text: str) -> None:
        super().__init__(f"the broker refused {subject}", why=f"{text} (JetStream error {number})")
        self.number = number
        self.text = text


class Problem(msgspec.Struct, frozen=True, gc=False):
    """The `error` of an answer of JetStream."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class _Open:
    """A request without an answer yet."""

    __slots__ = ("command", "future", "repeat", "subject")

    def __init__(
        self, command: bytes, future: asyncio.Future[Answer], subject: str, *, repeat: bool
    ) -> None:
        self.command = command
        self.future = future
        self.subject = subject.lower()
        self.repeat = repeat


class Asking:
    """All requests of one connection."""

    def __init__(self, client: RawClient, inbox: str) -> None:
        """`inbox` is the private prefix that ends in a dot; everything below `<inbox>r.` is used here."""
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._prefix = f"{inbox}r."
        self._cut = len(self._prefix)
        self._last = 0
        self._open: dict[bytes, _Open] = {}
        client.subscribe_direct(f"{self._prefix}*", self._answered)
        client.on_lost(self._lost)
        client.on_back(self._back)
        client.on_forbidden(self._forbidden)

    async def once(self, subject: str, data: bytes, seconds: float) -> Answer:
        """One request, sent once. Raises Unavailable: nobody listens, no answer in time, or the connection broke."""
        try:
            async with asyncio.timeout(seconds):
                answer = await self._ask(subject, data, repeat=False)
        except TimeoutError:
            raise Unavailable(f"no answer on {subject} within {seconds:g} s") from None
        if frames.status(answer.headers) == frames.NOBODY:
            raise Unavailable(f"nobody listens on {subject}")
        return answer

    async def read(self, subject: str, data: bytes = b"", *, seconds: float = PATIENCE) -> Answer:
        """A request that may be repeated: sent again after a reconnect, and for a while if nobody answers.

        Raises Unavailable.
        """
        nobody_until = self._loop.time() + NOBODY_PATIENCE
        try:
            async with asyncio.timeout(seconds):
                while True:
                    answer = await self._ask(subject, data, repeat=True)
                    if frames.status(answer.headers) != frames.NOBODY:
                        return answer
                    if self._loop.time() > nobody_until:
                        raise Unavailable(
                            f"the broker has nothing that answers {subject}",
                            why="JetStream or the stream is missing",
                            fix="start a coordinator (`switchgear dev`); it creates the streams",
                        )
                    await asyncio.sleep(_REPEAT)
        except TimeoutError:
            raise Unavailable(f"the broker did not answer {subject} within {seconds:g} s") from None

    async def api(
        self, subject: str, body: Mapping[str, object] | None = None, *, seconds: float = PATIENCE
    ) -> dict[str, Any]:
        """A call of `$JS.API.<subject>` that may be repeated. Raises ApiError, Unavailable."""
        data = b"" if body is None else msgspec.json.encode(body)
        answer = await self.read(f"$JS.API.{subject}", data, seconds=seconds)
        found: dict[str, Any] = msgspec.json.decode(answer.data)
        problem = found.get("error")
        if problem is not None:
            raise ApiError(
                subject, int(problem.get("err_code", 0)), str(problem.get("description", ""))
            )
        return found

    def close(self) -> None:
        """End all open requests with Unavailable."""
        self._client.forget_listener(self._lost, self._back)
        for request in self._open.values():
            self._fail(request, Unavailable("the bus was closed"))
        self._open.clear()

    async def _ask(self, subject: str, data: bytes, *, repeat: bool) -> Answer:
        self._last += 1
        token = b"%d" % self._last
        reply = f"{self._prefix}{self._last}"
        command = f"PUB {subject} {reply} {len(data)}\r\n".encode() + data + b"\r\n"
        request = _Open(command, self._loop.create_future(), subject, repeat=repeat)
        self._open[token] = request
        if self._client.is_closed:
            self._fail(request, Unavailable("the bus is closed"))
        elif self._client.ready:
            self._client.send(command)
        elif not repeat:
            self._fail(request, Unavailable("the connection to the broker is down"))
        try:
            return await request.future
        finally:
            self._open.pop(token, None)

    def _answered(self, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:  # noqa: ARG002 - Direct
        request = self._open.get(subject[self._cut :])
        if request is not None and not request.future.done():
            request.future.set_result(Answer(headers, data))

    def _lost(self) -> None:
        for request in self._open.values():
            if not request.repeat:
                self._fail(request, Unavailable("the connection to the broker broke"))

    def _back(self) -> None:
        for request in self._open.values():
            if request.repeat and not request.future.done():
                self._client.send(request.command)

    def _forbidden(self, subject: str) -> None:
        for request in self._open.values():
            if request.subject == subject:
                self._fail(request, forbidden(subject))

    @staticmethod
    def _fail(request: _Open, error: SwitchgearError) -> None:
        if not request.future.done():
            request.future.set_exception(error)


def forbidden(subject: str) -> UsageError:
    """The error for a subject that the broker's permissions keep from this principal."""
    return UsageError(
        f"publishing on {subject} is not allowed",
        why="the broker's permissions for this principal do not cover it",
        fix="sign in as a principal with the right role (`switchgear doctor` shows the present one)",
    )


def decoded(text: str | None) -> bytes:
    """Base64 of the API's JSON, which leaves an empty field out."""
    return b"" if text is None else base64.b64decode(text)
