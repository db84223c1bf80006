"""What a broker makes of any header block: the twin lets through what the server does."""

from __future__ import annotations

import pytest

from switchgear.bus.port import Appended, Bus, Message, Refused
from switchgear.contract import subjects
from switchgear.contract.stored import EXPECTED, EXPECTED_SCOPE, expectation
from tests.conformance.support import Backend, Names, RawError, Received

EMPTY = b"NATS/1.0\r\n\r\n"


def block(*lines: str) -> bytes:
    """A header block of these lines, with SCOPE for the task's scope in them."""
    return b"NATS/1.0\r\n" + "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"


def fill(headers: bytes, names: Names) -> bytes:
    """The block with the test's own scope."""
    return headers.replace(b"SCOPE", names.scope().encode())


STORED = {
    "no headers": b"",
    "empty block": EMPTY,
    "own subject, without scope": block(f"{EXPECTED}: 0"),
    "empty scope is the own subject": block(f"{EXPECTED}: 0", f"{EXPECTED_SCOPE}: "),
    "foreign subject": block(f"{EXPECTED}: 0", f"{EXPECTED_SCOPE}: sg.other"),
    "no subject at all": block(f"{EXPECTED}: 0", f"{EXPECTED_SCOPE}: sg..other"),
    "scope first": block(f"{EXPECTED_SCOPE}: SCOPE", f"{EXPECTED}: 0"),
    "no blanks": block(f"{EXPECTED}:0", f"{EXPECTED_SCOPE}:SCOPE"),
    "many blanks before": block(f"{EXPECTED}:    0", f"{EXPECTED_SCOPE}:    SCOPE"),
    "lower case is not checked": block(
        f"{EXPECTED.lower()}: 7", f"{EXPECTED_SCOPE.lower()}: SCOPE"
    ),
    "blank before the colon is not checked": block(f"{EXPECTED} : 7", f"{EXPECTED_SCOPE} : SCOPE"),
    "other name that ends alike": block(f"X-{EXPECTED}: 7", f"{EXPECTED}: 0"),
    "first of repeated ones counts": block(
        f"{EXPECTED}: 0", f"{EXPECTED_SCOPE}: SCOPE", f"{EXPECTED}: 7", f"{EXPECTED_SCOPE}: x"
    ),
    "2^64 is 0": block(f"{EXPECTED}: 18446744073709551616", f"{EXPECTED_SCOPE}: SCOPE"),
    "no header line": block("garbage"),
}
"""Blocks with which the server stores a first entry."""

REFUSED = {
    "wrong sequence": block(f"{EXPECTED}: 7", f"{EXPECTED_SCOPE}: SCOPE"),
    "wrong sequence, own subject": block(f"{EXPECTED}: 7"),
    "leading zeros count as digits": block(f"{EXPECTED}: 007", f"{EXPECTED_SCOPE}: SCOPE"),
    "words": block(f"{EXPECTED}: abc", f"{EXPECTED_SCOPE}: SCOPE"),
    "sign": block(f"{EXPECTED}: -1", f"{EXPECTED_SCOPE}: SCOPE"),
    "plus": block(f"{EXPECTED}: +0", f"{EXPECTED_SCOPE}: SCOPE"),
    "fraction": block(f"{EXPECTED}: 0.0", f"{EXPECTED_SCOPE}: SCOPE"),
    "blank behind": block(f"{EXPECTED}: 0 ", f"{EXPECTED_SCOPE}: SCOPE"),
    "2^64 - 1": block(f"{EXPECTED}: 18446744073709551615", f"{EXPECTED_SCOPE}: SCOPE"),
    "25 digits": block(f"{EXPECTED}: {'9' * 25}", f"{EXPECTED_SCOPE}: SCOPE"),
    "wrong one first": block(f"{EXPECTED}: 7", f"{EXPECTED}: 0", f"{EXPECTED_SCOPE}: SCOPE"),
}
"""Blocks with which the server refuses a first entry."""


@pytest.mark.parametrize("case", STORED)
async def test_block_is_stored_as_it_came(
    backend: Backend, bus: Bus, names: Names, case: str
) -> None:
    """The server takes it, and gives the very same bytes back to who reads."""
    headers = fill(STORED[case], names)
    subject = subjects.task_event(names.scope(), "submitted")
    outcome = await backend.raw(subject, headers, b"raw")
    assert isinstance(outcome, Appended)
    entry = await bus.ledger.entry(outcome.sequence)
    assert entry is not None
    assert (subject, headers, b"raw") == (entry.subject, entry.headers, entry.data)
    tail = await bus.ledger.tail(names.scope())
    assert tail is not None
    # A direct get's answer always has headers, so that none and an empty block look alike there.
    assert entry._replace(headers=headers or EMPTY) == tail._replace(headers=tail.headers or EMPTY)
    assert [entry] == await bus.ledger.history(names.scope())


@pytest.mark.parametrize("case", REFUSED)
async def test_block_is_refused(backend: Backend, bus: Bus, names: Names, case: str) -> None:
    """The server answers that nothing is stored there, and nothing is."""
    headers = fill(REFUSED[case], names)
    subject = subjects.task_event(names.scope(), "submitted")
    assert await backend.raw(subject, headers, b"raw") == Refused(0)
    assert await bus.ledger.history(names.scope()) == []


@pytest.mark.parametrize("number", ["", None])
async def test_scope_without_a_sequence_is_an_error(
    backend: Backend, bus: Bus, names: Names, number: str | None
) -> None:
    """The server refuses it by another code than a wrong sequence."""
    lines = [f"{EXPECTED_SCOPE}: SCOPE"] + ([] if number is None else [f"{EXPECTED}:{number}"])
    subject = subjects.task_event(names.scope(), "submitted")
    with pytest.raises(RawError):
        await backend.raw(subject, fill(block(*lines), names), b"raw")
    assert await bus.ledger.history(names.scope()) == []


async def test_unchecked_entry_moves_the_scope_on(backend: Backend, bus: Bus, names: Names) -> None:
    """A raw entry without headers proves nothing, but the next append must name it."""
    scope = names.scope()
    outcome = await backend.raw(subjects.task_event(scope, "cancel-requested"), b"", b"raw")
    assert isinstance(outcome, Appended)
    submitted = subjects.task_event(scope, "submitted")
    refused = await bus.ledger.append(submitted, b"{}", scope=scope, expect=0)
    stored = await bus.ledger.append(submitted, b"{}", scope=scope, expect=outcome.sequence)
    assert refused == Refused(outcome.sequence)
    assert isinstance(stored, Appended)
    history = await bus.ledger.history(scope)
    assert [None, outcome.sequence] == [expectation(entry.headers, scope) for entry in history]


async def test_raw_entry_is_republished_with_the_servers_headers(
    backend: Backend, bus: Bus, names: Names
) -> None:
    """A block is made where there was none; it names the subject's last sequence."""
    heard = Received[Message]()
    subscription = await bus.core.subscribe(subjects.live(names.owner), heard)
    subject = subjects.task_event(names.scope(), "checkpoint")
    first = await backend.raw(subject, b"", b"1")
    second = await backend.raw(subject, EMPTY, b"2")
    assert isinstance(first, Appended)
    assert isinstance(second, Appended)
    live = [message.headers.split(b"\r\n") for message in await heard.reach(2)]
    await subscription.unsubscribe()
    for lines, sequence, last in zip(
        live, (first.sequence, second.sequence), (0, first.sequence), strict=True
    ):
        assert lines[:4] == [
            b"NATS/1.0",
            b"Nats-Stream: SG_LEDGER",
            f"Nats-Subject: {subject}".encode(),
            b"Nats-Sequence: %d" % sequence,
        ]
        assert lines[4].startswith(b"Nats-Time-Stamp: ")
        assert lines[5:] == [b"Nats-Last-Sequence: %d" % last, b"", b""]
