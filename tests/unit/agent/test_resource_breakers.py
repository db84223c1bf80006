"""A host that runs out of something: its instance pulls no more of what needs it, and no attempt is burnt meanwhile."""

from __future__ import annotations

import errno
from datetime import timedelta
from pathlib import Path

import pytest

from switchgear import Agent, Breaker, Context, Retry, command
from switchgear.contract import entries
from switchgear.resilience.classes import RESOURCES
from switchgear.steps import shortage
from tests.unit.agent.stage import Stage, Text, stage
from tests.unit.agent.test_breaking import attempts, order, releases, stands

IN_A_ROW = 2
DISK = "resource:disk"


class Disk:
    """Where steps put their files."""

    full = False

    def ensure_room(self, directory: Path) -> None:
        """As `shortage.ensure_room`."""
        assert directory.is_dir()
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """The disk of this host."""
    monkeypatch.setenv("SWITCHGEAR_ISOLATION", "none")
    monkeypatch.delenv("_EXPERIMENTAL_DAGGER_CLI_BIN", raising=False)
    made = Disk()
    monkeypatch.setattr(shortage, "ensure_room", made.ensure_room)
    return made


def building() -> Agent:
    """An agent whose tasks are one command each."""
    agent = Agent("builder", version="1.0.0")
    policy = Breaker(in_a_row=IN_A_ROW, open_for=timedelta(seconds=20), jitter=0.0)
    agent.breaker("resource:*", policy)

    @agent.capability("build", retry=Retry(max_attempts=9, initial=timedelta(seconds=1)))
    async def build(value: Text, ctx: Context) -> Text:
        return Text((await ctx.run("echo", command("echo", value.text))).stdout)

    return agent


def real(on: Stage) -> Stage:
    """With the executors that agents have, behind each instance's breakers."""
    on.site.runs = None  # type: ignore[assignment]  # what an instance makes for itself
    return on


async def test_a_full_disk_stops_pulls_and_burns_no_attempt_until_it_is_free(disk: Disk) -> None:
    """The failures that open the breaker are attempts; what comes after waits, and completes in its first."""
    async with stage() as bare:
        on = real(bare)
        await on.join(building())
        assert await on.mesh.call("build", Text("a")) == {"text": "a\n"}
        disk.full = True
        first = await on.mesh.submit("build", Text("b"))
        state = await stands(on, "open", DISK)
        assert "resource: StepFailed" in state.why
        later = await on.mesh.submit("build", Text("c"))
        await on.reach(later.id, "dispatched")
        disk.full = False
        assert await later.result() == {"text": "c\n"}
        assert await first.result() == {"text": "b\n"}
        assert {attempt for attempt, _ in attempts(on.history(later.id))} == {1}
        failures = [
            valid.entry.error
            for valid in on.history(first.id).valid
            if isinstance(valid.entry, entries.AttemptFailed)
        ]
        assert [(one.error_class, one.dependency) for one in failures] == [
            ("resource", DISK)
        ] * IN_A_ROW
        assert all(one.outcome_known for one in failures)
        await stands(on, "closed", DISK)
        assert set(releases(on.history(first.id))) <= {("breaker", DISK)}


async def test_a_resource_is_held_open_and_reset_by_name(disk: Disk) -> None:
    """Before a step has ever asked for it."""
    assert not disk.full
    async with stage() as bare:
        on = real(bare)
        member = await on.join(building())
        order(on, member, "open", "resource:memory")
        await stands(on, "forced-open", "resource:memory")
        handle = await on.mesh.submit("build", Text("a"))
        history = await on.reach(handle.id, "released")
        assert releases(history) == [("breaker", "resource:memory")]
        order(on, member, "reset", "resource:memory")
        assert await handle.result() == {"text": "a\n"}
        assert {attempt for attempt, _ in attempts(on.history(handle.id))} == {1}
        for name in RESOURCES:
            assert (await stands(on, "closed", name)).opened == 0
