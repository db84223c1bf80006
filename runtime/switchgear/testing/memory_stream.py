"""A stream of the memory broker: messages by sequence, and nats-server's own check of an append.

The check is the server's, not ours: it reads header blocks as nats-server 2.15 does, faults
included, so that tests can store what a raw client can store. `contract.stored.expectation` is the
strict reader on top of it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from switchgear.bus.port import Refused
from switchgear.contract import limits
from switchgear.contract.stored import EXPECTED, EXPECTED_SCOPE, Stored
from switchgear.errors import ProtocolError, Unavailable, UsageError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator

    from switchgear.clock import Clock

MESSAGE_ID = "Nats-Msg-Id"
MAX_PAYLOAD = 1024 * limits.KIB
"""Bytes of a message, headers included: nats-server's default."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FULL_RETRY = 1.0
"""Seconds after which an append to a full stream may be tried again."""

_UINT64 = 2**64
_OVERHEAD = 34
"""Bytes that the server's file store adds to a message: lengths, sequence, time and checksum."""
_TASK_TOKEN = 4
"""Place of the task in a ledger subject: what nearly every filter names, so what is indexed."""


@lru_cache(maxsize=4096)
def matcher(filters: tuple[str, ...]) -> Callable[[str], object]:
    """A function that tells, truly or falsely, whether one of the filters covers a subject."""
    if len(filters) == 1:
        # A scope is asked for once or twice: to compile it would cost more than all its matches.
        plain = filters[0].removesuffix(".>")
        if "*" not in plain and ">" not in plain:
            start = plain + "."
            if len(plain) < len(filters[0]):
                return lambda subject: subject.startswith(start) and subject != start
            return plain.__eq__
    return re.compile("|".join(map(_pattern, filters))).fullmatch


def _pattern(subject_filter: str) -> str:
    parts = [
        {"*": r"[^.]+", ">": r".+"}.get(token, re.escape(token))
        for token in subject_filter.split(".")
    ]
    return r"\.".join(parts)


def matches(subject_filter: str, subject: str) -> bool:
    """Whether the filter (`*`: one token, a last `>`: one or more) covers the subject."""
    return bool(matcher((subject_filter,))(subject))


def any_matches(filters: Iterable[str], subject: str) -> bool:
    """Whether one of the filters covers the subject."""
    return bool(matcher(tuple(filters))(subject))


def check_message(subject: str, size: int) -> None:
    """What every publish of `bus/` checks. Raises ProtocolError SG1103 (too large), SG1107."""
    if size > MAX_PAYLOAD:
        what = f"a message of {size} bytes on {subject}"
        raise ProtocolError(what, code="SG1103", why=f"the broker takes {MAX_PAYLOAD}")
    if not subject.isascii() or not subject.isprintable() or " " in subject or not subject:
        raise ProtocolError(f"{subject[:200]!r} cannot be a subject", code="SG1107")


def header_value(block: bytes, name: str) -> bytes:
    """What the server takes as this header's value: of the first one in exact case, else empty.

    Blanks before the value are skipped, blanks behind it belong to it.
    """
    key = name.encode()
    offset = 0
    while (found := block.find(key, offset)) - offset >= len("\r\n"):
        offset = found + len(key)
        if block[found - 2 : found] == b"\r\n" and block[offset : offset + 1] == b":":
            return block[offset + 1 :].partition(b"\r\n")[0].lstrip(b" ")
    return b""


def with_headers(block: bytes, headers: Iterable[tuple[str, str]]) -> bytes:
    """The block with these headers behind those that it has, as the server adds its own."""
    kept = block[:-2] if block else b"NATS/1.0\r\n"
    return kept + "".join(f"{name}: {value}\r\n" for name, value in headers).encode() + b"\r\n"


def timestamp(time_ns: int) -> str:
    """A store time as the server writes it: RFC 3339, nanoseconds without trailing zeros."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    text = (EPOCH + timedelta(seconds=seconds)).isoformat().removesuffix("+00:00")
    fraction = f".{rest:09d}".rstrip("0").rstrip(".")
    return f"{text}{fraction}Z"


def _number(value: bytes) -> int:
    """The server's reading of a sequence: decimal digits modulo 2^64, all else is 2^64 - 1."""
    if not value.isdigit():
        return _UINT64 - 1
    number = 0
    for digit in value:
        number = (number * 10 + digit - ord("0")) % _UINT64
    return number


class Stream:
    """Messages in the order of their sequences."""

    def __init__(
        self,
        name: str,
        clock: Clock,
        *,
        newest_only: bool = False,
        max_bytes: int | None = None,
        remembers_ids: timedelta = timedelta(),
    ) -> None:
        """Create an empty stream.

        `newest_only` keeps one message per subject; above `max_bytes` it refuses appends (None:
        never). `remembers_ids`: how long a message with the same Nats-Msg-Id is a repeat.
        """
        self.name = name
        self.last_sequence = 0
        self.heard: list[Callable[[Stored], None]] = []
        """Called with each message as it is stored."""
        self.lost: list[Callable[[int], None]] = []
        """Called with the sequence of each message that is deleted."""
        self.max_bytes = max_bytes
        self.bytes = 0
        self._clock = clock
        self._newest_only = newest_only
        self._messages: dict[int, Stored] = {}
        self._of_subject: dict[str, list[int]] = {}
        self._of_task: dict[str, list[int]] = {}
        self._remembers_ids = remembers_ids
        self._ids: dict[bytes, datetime] = {}
        self._waiters: list[asyncio.Future[None]] = []

    def check(self, subject: str, headers: bytes) -> Refused | None:
        """The server's compare-and-set: a refusal with the last sequence, or None to store it.

        Raises UsageError for a scope without a sequence, which the server refuses too (10193).
        """
        number = header_value(headers, EXPECTED)
        scope = header_value(headers, EXPECTED_SCOPE)
        if not number:
            if scope:
                raise UsageError(
                    "missing sequence for expected last sequence per subject", why="10193"
                )
            return None
        newest = self.newest(scope.decode() or subject)
        last = 0 if newest is None else newest.sequence
        return None if last == _number(number) else Refused(last)

    def is_repeat(self, headers: bytes) -> bool:
        """Whether a message with this Nats-Msg-Id was stored a short while ago."""
        now = self._clock.now()
        # In the order of storing, so the oldest are first.
        for name, at in list(self._ids.items()):
            if now - at < self._remembers_ids:
                break
            del self._ids[name]
        return header_value(headers, MESSAGE_ID) in self._ids

    def append(self, subject: str, headers: bytes, data: bytes) -> Stored:
        """Store a message, whatever its headers say. Raises Unavailable when the stream is full."""
        size = _OVERHEAD + len(subject) + len(headers) + len(data)
        if self.max_bytes is not None and self.bytes + size > self.max_bytes:
            raise Unavailable(
                f"the stream {self.name} is full",
                fix="wait until finished tasks have been deleted, or raise the stream's max_bytes",
                retry_after=FULL_RETRY,
                full=True,
            )
        if self._newest_only:
            self.purge(subject)
        self.last_sequence += 1
        time_ns = (self._clock.now() - EPOCH) // timedelta(microseconds=1) * 1000
        stored = Stored(subject, self.last_sequence, time_ns, headers, data)
        self.bytes += size
        if self._remembers_ids and (message_id := header_value(headers, MESSAGE_ID)):
            self._ids[message_id] = self._clock.now()
        self._messages[stored.sequence] = stored
        self._of_subject.setdefault(subject, []).append(stored.sequence)
        self._of_task.setdefault(_task(subject), []).append(stored.sequence)
        self._tell(stored)
        return stored

    @property
    def first_sequence(self) -> int:
        """The sequence of the oldest message; the next one to be given where there is none."""
        return next(iter(self._messages), self.last_sequence + 1)

    def count(self, subject_filter: str) -> int:
        """How many subjects the filter covers."""
        return sum(matches(subject_filter, subject) for subject in self._of_subject)

    def get(self, sequence: int) -> Stored | None:
        """The message with this sequence, if it is still there."""
        return self._messages.get(sequence)

    def newest(self, subject_filter: str) -> Stored | None:
        """The newest message under the filter."""
        covers = matcher((subject_filter,))
        for sequence in reversed(self._candidates(subject_filter)):
            stored = self._messages[sequence]
            if covers(stored.subject):
                return stored
        return None

    def under(self, subject_filter: str) -> list[Stored]:
        """All messages under the filter, oldest first."""
        covers = matcher((subject_filter,))
        found = map(self._messages.__getitem__, self._candidates(subject_filter))
        return [stored for stored in found if covers(stored.subject)]

    def beyond(self, sequence: int) -> Iterator[Stored]:
        """The messages after this sequence, oldest first."""
        for later in range(sequence + 1, self.last_sequence + 1):
            stored = self._messages.get(later)
            if stored is not None:
                yield stored

    def last_of(self, subject: str) -> int:
        """The sequence of the newest message of exactly this subject; 0 where there is none."""
        return self._of_subject.get(subject, [0])[-1]

    def remove(self, sequence: int) -> None:
        """Delete one message; its sequence is never used again."""
        stored = self._messages.pop(sequence, None)
        if stored is None:
            return
        self.bytes -= _OVERHEAD + len(stored.subject) + len(stored.headers) + len(stored.data)
        for index, key in (
            (self._of_subject, stored.subject),
            (self._of_task, _task(stored.subject)),
        ):
            index[key].remove(sequence)
            if not index[key]:
                del index[key]
        for lost in list(self.lost):
            lost(sequence)

    def purge(self, subject: str) -> None:
        """Delete all messages of exactly this subject."""
        for sequence in list(self._of_subject.get(subject, ())):
            self.remove(sequence)

    def on_growth(self, waiter: asyncio.Future[None]) -> None:
        """Complete the future when the next message is stored."""
        self._waiters.append(waiter)

    def _tell(self, stored: Stored) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        for heard in list(self.heard):
            heard(stored)

    def _candidates(self, subject_filter: str) -> list[int]:
        """Ascending sequences among which are all that the filter covers."""
        if subject_filter in self._of_subject:
            return self._of_subject[subject_filter]
        tokens = subject_filter.split(".")
        if len(tokens) > _TASK_TOKEN and tokens[_TASK_TOKEN] not in {"*", ">"}:
            return self._of_task.get(tokens[_TASK_TOKEN], [])
        return list(self._messages)


def _task(subject: str) -> str:
    tokens = subject.split(".", _TASK_TOKEN + 1)
    return tokens[_TASK_TOKEN] if len(tokens) > _TASK_TOKEN else ""
