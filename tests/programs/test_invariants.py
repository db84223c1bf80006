"""How often a step may run is bounded by what interrupted it, and by nothing else."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from tests.programs.invariants import Ledger, violations
from tests.programs.program import Program, Step
from tests.programs.record import Execution, Outage, Recording, Submission
from tests.unit.lifecycle.script import T0, TASK, Script

PROGRAM = Program(ops=(Step("k", 1),))
TOO_OFTEN = [f"{TASK}: k ran 2 times, 1 are allowed"]


def ran_twice(*outages: tuple[float, float]) -> list[str]:
    """What is said of a step that began at second 3 and at second 4, under the hold that second 2 gave."""
    script = Script()
    script.add("submitted", at=T0)
    hold = script.add("dispatched", at=T0 + timedelta(seconds=2))
    script.add("checkpoint", hold=hold, at=T0 + timedelta(seconds=6))
    script.add("completed", hold=hold, at=T0 + timedelta(seconds=6), output=msgspec.Raw(b"1"))
    began = T0.timestamp()
    recording = Recording(
        [Execution("step", TASK, "k", hold, began + at, attempt=1) for at in (3, 4)],
        [Submission(TASK, "review", "alice", PROGRAM)],
        faults={"server killed": len(outages), "frozen": 1},
        outages=[Outage(began + since, began + until) for since, until in outages],
    )
    return violations(Ledger.read(script.stored), recording)


@pytest.mark.parametrize("outage", [(3.2, 3.6), (2.1, 2.5), (1.9, 2.1)])
def test_step_may_run_again_after_a_restart_of_the_server_since_its_hold(
    outage: tuple[float, float],
) -> None:
    """A killed server forgets what it delivered just before; its first holder may begin with it after the restart."""
    assert ran_twice(outage) == []


@pytest.mark.parametrize("outages", [[], [(0.5, 1.0)], [(4.5, 5.0)], [(0.5, 1.0), (7.0, 8.0)]])
def test_restart_before_the_hold_or_after_the_last_execution_allows_none(
    outages: list[tuple[float, float]],
) -> None:
    assert ran_twice(*outages) == TOO_OFTEN


def asleep(*, ahead: float, clock_faults: bool) -> list[str]:
    """What is said of a task that waits for a time set by a clock that was so many seconds ahead."""
    script = Script()
    script.add("submitted")
    script.add("dispatched")
    by_agent = T0 + timedelta(seconds=ahead)
    script.add("waiting", time=by_agent, until=by_agent + timedelta(seconds=3))
    return violations(Ledger.read(script.stored), Recording(), clock_faults=clock_faults)


def test_wait_set_by_a_wrong_clock_is_not_stuck() -> None:
    assert asleep(ahead=3600, clock_faults=True) == []


@pytest.mark.parametrize(("ahead", "clock_faults"), [(3600, False), (0.5, True), (-3600, True)])
def test_any_other_wait_that_does_not_end_is_stuck(ahead: float, clock_faults: bool) -> None:  # noqa: FBT001
    assert [one.split(":")[0] for one in asleep(ahead=ahead, clock_faults=clock_faults)] == [
        "stuck"
    ]
