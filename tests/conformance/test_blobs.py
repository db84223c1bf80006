"""The object store: payloads by digest."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest

from switchgear.bus.port import Bus, StoredBlob
from switchgear.clock import SYSTEM
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


async def listed(bus: Bus) -> list[StoredBlob]:
    """All pages."""
    found: list[StoredBlob] = []
    while page := await bus.blobs.list(found[-1].sequence if found else 0):
        found += page
    return found


async def test_blobs_are_listed_in_the_order_of_their_last_put(bus: Bus, names: Names) -> None:
    """With the broker's time of that put; beyond a sequence only those that came later."""
    digests = [await bus.blobs.put(f"{names.owner} {n}".encode()) for n in range(3)]
    found = [one for one in await listed(bus) if one.digest in digests]
    assert [one.digest for one in found] == digests
    assert all(abs(one.time - SYSTEM.now()) < timedelta(minutes=1) for one in found)
    later = await bus.blobs.list(found[0].sequence)
    assert [one.digest for one in later if one.digest in digests] == digests[1:]
    assert await bus.blobs.list(found[-1].sequence + 1000) == []


async def test_storing_a_young_blob_again_leaves_its_description(bus: Bus, names: Names) -> None:
    """So a put of what is there costs one look."""
    digest = await bus.blobs.put(names.owner.encode())
    before = [one for one in await listed(bus) if one.digest == digest]
    await bus.blobs.put(names.owner.encode())
    assert [one for one in await listed(bus) if one.digest == digest] == before


async def test_removed_blob_is_gone_until_it_is_stored_again(bus: Bus, names: Names) -> None:
    """The second removal finds nothing."""
    data = names.owner.encode()
    digest = await bus.blobs.put(data)
    (kept,) = [one for one in await listed(bus) if one.digest == digest]
    assert await bus.blobs.remove(digest, expect=kept.sequence)
    assert digest not in [one.digest for one in await listed(bus)]
    with pytest.raises(NotFound):
        await bus.blobs.get(digest)
    assert not await bus.blobs.remove(digest, expect=kept.sequence)
    assert await bus.blobs.put(data) == digest
    assert await bus.blobs.get(digest) == data


async def test_blob_that_was_stored_anew_survives_its_removal(bus: Bus, names: Names) -> None:
    """What the janitor saw is not what is there now."""
    data = names.owner.encode()
    digest = await bus.blobs.put(data)
    (seen,) = [one for one in await listed(bus) if one.digest == digest]
    assert await bus.blobs.remove(digest, expect=seen.sequence)
    await bus.blobs.put(data)
    assert not await bus.blobs.remove(digest, expect=seen.sequence)
    assert await bus.blobs.get(digest) == data


async def test_removal_that_expects_another_blobs_description_deletes_neither(
    bus: Bus, names: Names
) -> None:
    one = await bus.blobs.put(f"{names.owner} one".encode())
    two = await bus.blobs.put(f"{names.owner} two".encode())
    (other,) = [each for each in await listed(bus) if each.digest == two]
    assert not await bus.blobs.remove(one, expect=other.sequence)
    assert not await bus.blobs.remove(one, expect=0)
    for digest in (one, two):
        await bus.blobs.get(digest)


async def test_tidying_up_takes_no_piece_of_a_blob(bus: Bus, names: Names) -> None:
    """Whatever its age."""
    data = names.owner.encode() * 20_000
    digest = await bus.blobs.put(data)
    await bus.blobs.tidy(SYSTEM.now() + timedelta(hours=1))
    assert await bus.blobs.get(digest) == data
