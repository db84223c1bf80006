"""Capabilities as typed values."""

from __future__ import annotations

from typing import cast

import pytest

from switchgear.contract.capability import AnyCapability, Capability, reference
from switchgear.errors import UsageError


def test_a_capability_shows_its_name_and_types() -> None:
    """As a reader would write it."""
    assert repr(Capability("search", str, list[int])) == "Capability('search', str, list[int])"


def test_a_name_that_cannot_stand_in_a_subject_is_refused() -> None:
    """It becomes one token of every subject of its tasks."""
    with pytest.raises(UsageError, match="cannot name a capability"):
        Capability("web.search", str, str)


def test_a_name_alone_refers_to_an_untyped_capability() -> None:
    """And a capability to itself."""
    typed = Capability("search", str, int, version="1.2")
    assert reference(typed) is typed
    untyped = cast("AnyCapability", reference("search"))
    assert (untyped.name, untyped.input, untyped.output, untyped.version) == (
        "search",
        object,
        object,
        "*",
    )
