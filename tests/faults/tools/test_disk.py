"""A disk that is full says so, and gives its space back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.tools import disk
from tests.faults.tools.disk import SmallDisk
from tests.faults.tools.needs import need

pytestmark = pytest.mark.faults
MEGABYTE = 1 << 20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of a megabyte."""
    need(disk.missing())
    with SmallDisk(tmp_path / "small", MEGABYTE) as made:
        yield made
    assert not (tmp_path / "small").is_mount()


def test_full_disk_takes_no_more_until_it_is_relieved(small: SmallDisk) -> None:
    small.fill()
    file = small.path / "one"
    with pytest.raises(OSError, match="No space left"):
        file.write_bytes(b"x" * 8192)
    small.relieve()
    file.write_bytes(b"x" * 8192)
    assert file.stat().st_size == 8192


def test_disk_can_be_filled_but_for_a_little(small: SmallDisk) -> None:
    small.fill(leave=MEGABYTE // 4)
    assert small.free == pytest.approx(MEGABYTE // 4, abs=8192)
