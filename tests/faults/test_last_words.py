"""What a process says when it dies reaches whoever looks at the task that took it down."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from switchgear import Capability, TaskDead, TaskHandle
from switchgear.client.mesh import Mesh
from switchgear.contract import codec, entries, subjects
from switchgear.contract.crash_report import CrashReport
from switchgear.contract.values import Failure
from tests.faults.conftest import LEASE
from tests.faults.processes import Child, Children
from tests.faults.programs.crashing import Text
from tests.integration.spine.stage import SOON, history_of, until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="only there processes are watched"),
]

DIE = Capability("die", Text, Text)
UNSEEN = 3600.0
"""`shown_after`: with so short a lease, a dead instance that was announced as running would count as alive."""
TIMES = {"extend_every": LEASE.total_seconds() / 3, "shown_after": UNSEEN, "drain": 0.1}


async def joined(mesh: Mesh, *children: Child) -> None:
    """Wait until these are announced, by the process ids that they were started with."""

    async def all_there() -> bool:
        announced = {one.process for one in (await mesh.agents()).instances}
        return {child.pid for child in children} <= announced

    await until(all_there)


async def instance_of(mesh: Mesh, child: Child) -> str:
    """The instance's name."""
    await joined(mesh, child)
    return next(one.instance for one in (await mesh.agents()).instances if one.process == child.pid)


async def report_of(mesh: Mesh, instance: str) -> CrashReport:
    """How it died, as soon as that is known."""
    found: list[bytes] = []

    async def told() -> bool:
        data = await mesh.bus.core.newest(subjects.crash("worker", instance))
        found.extend([data] if data else [])
        return bool(found)

    await until(told)
    return codec.decode(found[0], CrashReport)


def served_by(watcher: int) -> int:
    """The process that a watcher watches."""
    listed = Path(f"/proc/{watcher}/task/{watcher}/children").read_text(encoding="utf-8")
    return int(listed.split()[0])


def gone(pid: int) -> bool:
    """Whether the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split()[2] == "Z"
    except FileNotFoundError:
        return True


async def failure_of(mesh: Mesh, handle: TaskHandle[Text]) -> Failure:
    """Why its attempt failed."""
    history = await history_of(mesh, handle)
    ends = [one.entry for one in history.valid if isinstance(one.entry, entries.AttemptFailed)]
    return ends[-1].error


async def test_task_that_kills_agents_is_dead_with_their_last_words(
    mesh: Mesh, children: Children
) -> None:
    """Three agents die of a segmentation fault; the fourth knows how, though it saw nothing of it."""
    agents = [await children.watched("worker", **TIMES) for _ in range(4)]
    await joined(mesh, *agents)
    handle = await mesh.submit(DIE, Text("segfault"))
    with pytest.raises(TaskDead) as caught:
        await handle.result(timeout=SOON)
    assert (caught.value.error_class, caught.value.cause_code) == ("crash-loop", "SG1512")
    history = await history_of(mesh, handle)
    takeovers = [one.entry for one in history.valid if isinstance(one.entry, entries.TakenOver)]
    assert [one.how for one in takeovers] == ["crash"] * 3
    failure = await failure_of(mesh, handle)
    assert failure.why == "the last one was ended by SIGSEGV"
    assert "now comes segfault" in failure.last_words
    assert "Fatal Python error: Segmentation fault" in failure.last_words
    assert "crashing.py" in failure.last_words
    ended = [asyncio.create_task(one.ended()) for one in agents]
    while sum(one.done() for one in ended) < len(takeovers):
        await asyncio.wait(
            [one for one in ended if not one.done()], return_when=asyncio.FIRST_COMPLETED
        )
    codes = sorted(one.result() for one in ended if one.done())
    assert codes == [-signal.SIGSEGV] * 3
    for one in ended:
        one.cancel()


async def test_death_without_a_word_is_reported_too(mesh: Mesh, children: Children) -> None:
    """As when the kernel kills for memory: nothing was said, but how it ended is known."""
    child = await children.watched("worker", **TIMES)
    instance = await instance_of(mesh, child)
    os.kill(served_by(child.pid), signal.SIGKILL)
    assert await child.ended() == -signal.SIGKILL
    assert (await report_of(mesh, instance)).ended == "was ended by SIGKILL"


async def test_end_in_the_middle_of_a_handler_is_a_crash_whatever_the_exit_code(
    mesh: Mesh, children: Children
) -> None:
    child = await children.watched("worker", **TIMES)
    instance = await instance_of(mesh, child)
    await mesh.submit(DIE, Text("exit"))
    assert await child.ended() == 0
    report = await report_of(mesh, instance)
    assert report.ended == "ended with exit code 0"
    assert report.last_words.endswith("now comes exit")


async def test_flood_of_words_is_kept_by_its_end_and_passed_on(
    mesh: Mesh, children: Children
) -> None:
    child = await children.watched("worker", **TIMES)
    instance = await instance_of(mesh, child)
    await mesh.submit(DIE, Text("flood"))
    assert await child.ended() == 3
    lines = (await report_of(mesh, instance)).last_words.splitlines()
    assert lines == [f"line {number}" for number in range(200_000 - len(lines), 200_000)]
    assert 500 < len(lines) < 900
    assert child.output().endswith("line 199999\n")


async def test_child_that_keeps_the_pipe_open_does_not_hold_the_report_up(
    mesh: Mesh, children: Children
) -> None:
    child = await children.watched("worker", **TIMES)
    instance = await instance_of(mesh, child)
    await mesh.submit(DIE, Text("orphan"))
    assert await child.ended() == 3
    assert (await report_of(mesh, instance)).last_words.endswith("now comes orphan")


async def test_killed_watcher_takes_its_agent_along(mesh: Mesh, children: Children) -> None:
    child = await children.watched("worker", **TIMES)
    await joined(mesh, child)
    serving = served_by(child.pid)
    child.tell(signal.SIGKILL)
    assert await child.ended() == -signal.SIGKILL

    async def ended() -> bool:
        return gone(serving)

    await until(ended)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_told_watcher_lets_its_agent_leave_in_order(
    mesh: Mesh, children: Children, number: signal.Signals
) -> None:
    """What runs is handed back, and nothing is reported: nobody died."""
    child = await children.watched("worker", **TIMES)
    instance = await instance_of(mesh, child)
    handle = await mesh.submit(DIE, Text("wait"))

    async def runs() -> bool:
        return "now comes wait" in child.output()

    await until(runs)
    child.tell(number)
    assert await child.ended() == 0
    history = await history_of(mesh, handle)
    assert history.valid[-1].subject.event == "released"
    assert await mesh.bus.core.newest(subjects.crash("worker", instance)) is None


async def test_signal_that_nobody_handles_ends_both_alike(mesh: Mesh, children: Children) -> None:
    child = await children.watched("worker", **TIMES)
    await joined(mesh, child)
    child.tell(signal.SIGUSR2)
    assert await child.ended() == -signal.SIGUSR2
