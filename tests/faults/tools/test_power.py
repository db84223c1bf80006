"""What a power loss takes from a folder, and what it leaves."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.tools.needs import need
from tests.faults.tools.power import PowerFolder, missing
from tests.faults.tools.volume import Loss, Range, clipped, merged

pytestmark = pytest.mark.faults
SPANS = st.tuples(st.integers(0, 50), st.integers(1, 10)).map(lambda one: (one[0], sum(one)))


def bytes_of(ranges: list[Range]) -> set[int]:
    return {n for start, end in ranges for n in range(start, end)}


@given(st.lists(SPANS), st.integers(0, 60))
def test_ranges_are_the_bytes_that_were_written(spans: list[Range], length: int) -> None:
    ranges = list[Range]()
    for one in spans:
        ranges = merged(ranges, one)
    assert bytes_of(ranges) == bytes_of(spans)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(ranges))
    assert bytes_of(clipped(ranges, length)) == {n for n in bytes_of(spans) if n < length}


@pytest_asyncio.fixture
async def folder(tmp_path: Path) -> AsyncIterator[PowerFolder]:
    """A folder that is mounted."""
    need(missing())
    async with PowerFolder(tmp_path / "power") as made:
        yield made
    assert not made.mount.is_mount()


def write(path: Path, data: bytes, *, sync: bool = False, flags: int = os.O_TRUNC) -> None:
    """Write a file, and sync it or not."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o640)
    os.write(fd, data)
    if sync:
        os.fsync(fd)
    os.close(fd)


async def after_loss(folder: PowerFolder) -> tuple[Loss, dict[str, bytes]]:
    """Lose the power; what is there when it is back."""
    loss = await folder.lose_power()
    await folder.power_on()
    files = [one for one in folder.mount.rglob("*") if one.is_file()]
    return loss, {str(one.relative_to(folder.mount)): one.read_bytes() for one in files}


async def test_only_synced_bytes_stay(folder: PowerFolder) -> None:
    write(folder.mount / "kept", b"synced", sync=True)
    write(folder.mount / "kept", b" not", flags=os.O_APPEND)
    write(folder.mount / "gone", b"1234")
    assert (folder.mount / "kept").read_bytes() == b"synced not"
    assert await after_loss(folder) == (Loss(8, 1), {"kept": b"synced"})


async def test_synchronous_descriptor_needs_no_sync(folder: PowerFolder) -> None:
    write(folder.mount / "file", b"stays", flags=os.O_SYNC)
    assert await after_loss(folder) == (Loss(0, 0), {"file": b"stays"})


async def test_sync_commits_earlier_changes_of_the_folder_but_no_foreign_bytes(
    folder: PowerFolder,
) -> None:
    """As a journal does: names in order, up to the sync; bytes of the synced file only."""
    mount = folder.mount
    (mount / "sub").mkdir()
    write(mount / "other", b"unsynced")
    write(mount / "old", b"moved", sync=True)
    (mount / "old").rename(mount / "sub" / "new")
    write(mount / "last", b"x", sync=True)
    (mount / "last").unlink()
    loss, files = await after_loss(folder)
    assert loss == Loss(8, 1)
    assert files == {"other": b"", "sub/new": b"moved", "last": b"x"}


async def test_truncation_waits_for_a_sync(folder: PowerFolder) -> None:
    write(folder.mount / "file", b"long content", sync=True)
    os.truncate(folder.mount / "file", 4)
    assert (folder.mount / "file").read_bytes() == b"long"
    assert await after_loss(folder) == (Loss(0, 1), {"file": b"long content"})


async def test_orderly_end_and_system_sync_keep_everything(folder: PowerFolder) -> None:
    write(folder.mount / "one", b"1")
    await folder.sync()
    write(folder.mount / "two", b"2")
    assert (await after_loss(folder))[1] == {"one": b"1"}
    write(folder.mount / "three", b"3")
    await folder.power_off()
    assert sorted(one.name for one in folder.disk.iterdir()) == ["one", "three"]


async def test_random_writes_read_back_as_on_a_plain_folder(
    folder: PowerFolder, tmp_path: Path
) -> None:
    """Overwritten, extended, cut and synced in between: the disk has the state of the last sync."""
    plain = tmp_path / "plain"
    for place in (plain, folder.mount / "file"):
        with place.open("w+b", buffering=0) as file:
            for n in range(200):
                os.pwrite(file.fileno(), bytes([n % 256]) * (n * 37 % 9000), n * 7919 % 100_000)
                if n % 29 == 0:
                    os.ftruncate(file.fileno(), n * 613)
            os.fsync(file.fileno())
    loss, files = await after_loss(folder)
    assert not loss.bytes
    assert files == {"file": plain.read_bytes()}
