"""Seeded schedules of faults over meshes of real processes: the checkers find nothing in the whole ledger.

One pair, to see that they run at all: `make faults` runs more of them, and longer ones.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.runs.__main__ import many, summary
from tests.integration.spine.stage import show

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.slow]

SECONDS = 4.0
"""Of faults in each schedule."""
SEEDS = (7, 8)
"""Run at the same time. Seed 7 fills the disk."""


@pytest.mark.timeout(600)  # a busy machine starts processes slowly
async def test_nothing_is_violated_whatever_happens_to_the_processes(
    tmp_path: Path, nats_binary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every task ends as it may, once, whoever is killed, frozen, cut off or set back."""
    results = await many(SEEDS, SECONDS, tmp_path)
    show(capsys, summary(results))
    assert not [f"seed {one.seed}: {told}" for one in results for told in one.violations]
    assert all(one.tasks and one.executions for one in results)
