"""What a stored message proves: rule 1 (a), judged on the raw header block."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchgear.contract.stored import (
    EXPECTED,
    EXPECTED_SCOPE,
    Stored,
    expect_headers,
    expectation,
    header_block,
)

SCOPE = "sg.task.review.alice.t1.>"
N = EXPECTED.encode()
S = EXPECTED_SCOPE.encode()
OWN = S + b": " + SCOPE.encode()


def block(*lines: bytes, first: bytes = b"NATS/1.0") -> bytes:
    return b"\r\n".join([first, *lines, b"", b""])


@settings(derandomize=True, deadline=None)
@given(st.integers(0, 10**19 - 1), st.booleans())
def test_the_headers_of_an_honest_append_prove_what_it_expected(number: int, other: bool) -> None:  # noqa: FBT001  # drawn
    """Other headers beside them change nothing."""
    headers = expect_headers(number, SCOPE)
    if other:
        headers = {"traceparent": "00-aa", **headers, "X": "y"}
    assert expectation(header_block(headers), SCOPE) == number


PROVEN = {
    "without a space": block(N + b":7", S + b":" + SCOPE.encode()),
    "scope first": block(OWN, N + b": 7"),
    "a status on the first line": block(N + b": 7", OWN, first=b"NATS/1.0 200 OK"),
    "without the last line break": block(N + b": 7", OWN)[:-2],
}


@pytest.mark.parametrize("headers", PROVEN.values(), ids=PROVEN)
def test_spellings_that_the_broker_checks_prove_it(headers: bytes) -> None:
    """Measured on nats-server 2.15.1: each of these is refused when its number is wrong."""
    assert expectation(headers, SCOPE) == 7


VOID = {
    "no headers": b"",
    "an empty block": block(),
    "no number": block(OWN),
    "no scope": block(N + b": 7"),
    "a repeated number": block(N + b": 7", N + b": 7", OWN),
    "a second number": block(N + b": 7", N + b": 8", OWN),
    "a repeated scope": block(N + b": 7", OWN, OWN),
    "two numbers and no scope": block(N + b": 7", N + b": 7"),
    "a second scope": block(N + b": 7", S + b": sg.task.a.b.c.>", OWN),
    "lower case": block(N.lower() + b": 7", OWN.lower()),
    "lower case beside the right ones": block(N + b": 7", OWN, N.lower() + b": 8"),
    "an upper-case scope header": block(N + b": 7", S.upper() + b": " + SCOPE.encode()),
    "another scope": block(N + b": 7", S + b": sg.task.review.alice.t2.>"),
    "a wider scope": block(N + b": 7", S + b": sg.task.review.alice.>"),
    "the same scope spelled with a star": block(N + b": 7", S + b": sg.task.review.alice.t1.*"),
    "a scope and a space": block(N + b": 7", OWN + b" "),
    "a scope after two spaces": block(N + b": 7", S + b":  " + SCOPE.encode()),
    "no value": block(N + b":", OWN),
    "a leading zero": block(N + b": 07", OWN),
    "two zeros": block(N + b": 00", OWN),
    "a plus sign": block(N + b": +7", OWN),
    "a minus sign": block(N + b": -7", OWN),
    "an underscore": block(N + b": 1_0", OWN),
    "a fraction": block(N + b": 7.0", OWN),
    "hexadecimal": block(N + b": 0x7", OWN),
    "Arabic digits": block(N + ": \u0667".encode(), OWN),
    "a superscript digit": block(N + ": ²".encode(), OWN),
    "two spaces": block(N + b":  7", OWN),
    "a tab": block(N + b":\t7", OWN),
    "a space after the number": block(N + b": 7 ", OWN),
    "a space before the colon": block(N + b" : 7", OWN),
    "an indented name": block(b" " + N + b": 7", OWN),
    "twenty digits": block(N + b": " + b"9" * 20, OWN),
    "a bare line feed after the number": block(N + b": 7\n", OWN),
    "lines divided by line feeds": block(N + b": 7", OWN).replace(b"\r\n", b"\n"),
    "lines divided by carriage returns": block(N + b": 7", OWN).replace(b"\r\n", b"\r"),
    "a name without a colon": block(N + b": 7", OWN, N),
    "a longer name": block(N + b": 7", OWN, N + b"-Foo: 1"),
    "a number that nothing ends": block(OWN)[:-2] + N + b": 77",
    "a scope that nothing ends": block(N + b": 7")[:-2] + OWN,
    "a longer scope that nothing ends": block(N + b": 7")[:-2] + OWN + b"x",
    "a suffixed number and no other": block(N + b"s: 7", OWN),
    # Measured on nats-server 2.15.1: the broker does not look at the number or the scope of these.
    "the number on the first line": block(OWN, first=N + b": 7"),
    "the scope on the first line": block(N + b": 7", first=OWN),
    "the name twice in a row inside a value": block(b"X: " + N + S + S, N + b": 7", OWN),
    "the name twice in a row inside a name": block(b"X" + N + S + S + b": 1", N + b": 7", OWN),
    "the scope's name hidden, the number first": block(b"X: " + S + S, OWN, first=N + b": 7"),
}


@pytest.mark.parametrize("headers", VOID.values(), ids=VOID)
def test_forged_headers_prove_nothing(headers: bytes) -> None:
    """Whatever the broker may not have checked, or not as this reader reads it, is no evidence."""
    assert expectation(headers, SCOPE) is None


@settings(max_examples=500, derandomize=True, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [b"\r\n", b"\r", b"\n", b" ", b":", b": ", b"7", b"X", N, S, N.lower(), SCOPE.encode()]
        ),
        max_size=14,
    ).map(b"".join)
    | st.binary(max_size=60)
)
def test_nothing_is_proven_beside_a_foreign_mention_of_the_names(extra: bytes) -> None:
    """Whatever stands before the two headers, they prove their number only where they stand alone."""
    found = expectation(b"NATS/1.0\r\n" + extra + b"\r\n" + block(N + b": 7", OWN)[10:], SCOPE)
    assert found == (None if N.lower() in extra.lower() else 7)


def test_the_time_of_a_message_is_the_brokers() -> None:
    """Nanoseconds since 1970 become a moment in UTC."""
    stored = Stored("s", 1, 1_767_225_600_123_456_000, b"", b"")
    assert stored.time == datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)
