"""The object store: payloads by digest."""

from __future__ import annotations

import hashlib

import pytest

from switchgear.bus.port import Bus
from switchgear.errors import NotFound
from tests.conformance.support import MakeBus, Names


async def test_blob_comes_back_by_its_digest(make_bus: MakeBus, names: Names) -> None:
    """Another connection reads the same bytes, under their SHA-256."""
    one, two = await make_bus("a"), await make_bus("b")
    data = names.capability.encode() * 20_000
    digest = await one.blobs.put(data)
    assert hashlib.sha256(data).hexdigest() == digest
    assert await two.blobs.get(digest) == data


async def test_empty_blob_is_a_blob(bus: Bus) -> None:
    """No bytes are content too."""
    assert await bus.blobs.get(await bus.blobs.put(b"")) == b""


async def test_storing_a_blob_again_gives_the_same_digest(bus: Bus, names: Names) -> None:
    """The second time changes nothing."""
    data = names.capability.encode()
    first = await bus.blobs.put(data)
    assert await bus.blobs.put(data) == first
    assert await bus.blobs.get(first) == data


async def test_missing_blob_is_not_found(bus: Bus, names: Names) -> None:
    """A digest that nobody stored says so."""
    with pytest.raises(NotFound):
        await bus.blobs.get(hashlib.sha256(names.owner.encode()).hexdigest())
