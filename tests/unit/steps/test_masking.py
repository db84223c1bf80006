"""Secrets taken out of streams."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchgear.steps.masking import Mask


@given(
    st.lists(st.text("ab", min_size=3, max_size=6), max_size=3),
    st.lists(st.binary(max_size=6).map(lambda data: bytes(97 + one % 3 for one in data))),
)
def test_no_secret_passes_however_the_stream_is_cut(
    secrets: list[str], pieces: list[bytes]
) -> None:
    mask = Mask(secrets)
    shown = b"".join([*map(mask.feed, pieces), mask.close()])
    whole = Mask(secrets)
    assert not any(secret.encode() in shown for secret in secrets)
    if not any(secret.encode() in b"".join(pieces) for secret in secrets):
        assert shown == b"".join(pieces)
    assert whole.text(b"".join(pieces).decode()).count("***") >= (shown.count(b"***") > 0)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_a_secret_that_comes_in_pieces_is_masked(size: int) -> None:
    data = b"it is swordfish, swordfish!"
    mask = Mask(["swordfish"])
    shown = b"".join(mask.feed(data[at : at + size]) for at in range(0, len(data), size))
    assert shown + mask.close() == b"it is ***, ***!"


def test_what_only_began_like_a_secret_is_shown_at_the_end() -> None:
    mask = Mask(["swordfish"])
    assert (mask.feed(b"a sword"), mask.close()) == (b"a ", b"sword")


def test_the_longer_of_two_secrets_is_masked_whole() -> None:
    assert Mask(["abc", "abcdef"]).text("abcdef abc") == "*** ***"


def test_each_long_line_of_a_secret_is_masked_too() -> None:
    key = "-----BEGIN-----\nAAAABBBBCCCC\nx\n"
    assert Mask([key]).text("AAAABBBBCCCC x") == "*** x"


def test_a_text_too_short_to_be_secret_is_left() -> None:
    assert Mask(["a", ""]).text("banana") == "banana"
