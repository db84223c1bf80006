"""The seam between steps and executors: who runs what, under which guard, and what its end means."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from switchgear.errors import StepFailed, Unavailable, UsageError
from switchgear.resilience.classify import verdict
from switchgear.steps.executor import Asked, Health, OnLine, RunOn, Unsupported
from switchgear.steps.result import Outcome
from switchgear.steps.runner import Runner
from switchgear.steps.spec import StepSpec, command, container
from switchgear.steps.workspace import Workspace, forget_dead


class Recording:
    """An executor that tells what it was asked, and ends as it is told."""

    def __init__(self, name: str, code: int = 0, lacking: Unsupported | None = None) -> None:
        self.name = name
        self.ran: list[StepSpec] = []
        self.closed = False
        self.raises: Exception | None = None
        self.in_doubt = False
        self._code = code
        self._lacking = lacking

    def unsupported(self, spec: StepSpec) -> Unsupported | None:
        del spec
        return self._lacking

    def dependencies(self, spec: StepSpec) -> tuple[str, ...]:
        del spec
        return (self.name, f"registry:{self.name}")

    async def execute(
        self, spec: StepSpec, *, on_line: OnLine | None, workspace: Workspace
    ) -> Outcome:
        del on_line
        assert workspace.directory.is_dir()
        self.ran.append(spec)
        workspace.in_doubt = self.in_doubt
        if self.raises is not None:
            raise self.raises
        return Outcome(
            exit_code=self._code, executor=self.name, isolation="container", notes=("noted",)
        )

    async def health(self) -> Health:
        return Health(ok=True)

    async def close(self) -> None:
        self.closed = True


HOST, IMAGE = command("true"), container("alpine").exec("true")


async def test_an_image_runs_on_the_engine_where_there_is_one_and_all_else_as_a_process() -> None:
    process, dagger = Recording("process"), Recording("dagger")
    both = Runner([process, dagger])
    assert (await both.run(Asked(IMAGE, "it"))).executor == "dagger"
    assert (await both.run(Asked(HOST, "it"))).executor == "process"
    assert (await Runner([process]).run(Asked(IMAGE, "it"))).executor == "process"
    await both.close()
    assert process.closed
    assert dagger.closed


async def test_a_plan_decides_and_may_ask_one_executor_after_the_other() -> None:
    process, dagger = Recording("process"), Recording("dagger")
    dagger.raises = StepFailed("no", key="it", error_class="transient")

    async def plan(asked: Asked, run_on: RunOn) -> Outcome:
        assert (asked.key, asked.task, asked.capability) == ("it", "task", "build")
        try:
            return await run_on("dagger")
        except StepFailed:
            return await run_on("process")

    result = await Runner([process, dagger], plan=plan).run(Asked(HOST, "it", "task", "build"))
    assert (result.executor, result.notes) == ("process", ("noted",))
    assert (dagger.ran, process.ran) == ([HOST], [HOST])


async def test_each_execution_is_guarded_by_what_it_depends_on() -> None:
    told: list[tuple[str, ...]] = []

    async def guard(
        asked: Asked, dependencies: tuple[str, ...], execute: Callable[[], Awaitable[Outcome]]
    ) -> Outcome:
        del asked
        told.append(dependencies)
        return await execute()

    await Runner([Recording("process")], guard=guard).run(Asked(HOST, "it"))
    assert told == [("process", "registry:process")]


async def test_what_an_executor_cannot_do_is_refused_before_it_is_asked() -> None:
    lacking = Unsupported(feature="services", why="it has none", fix="use an engine")
    executor = Recording("process", lacking=lacking)
    with pytest.raises(StepFailed, match="needs services") as caught:
        await Runner([executor]).run(Asked(HOST, "it"))
    assert (caught.value.error_class, caught.value.fix) == ("invalid", "use an engine")
    assert executor.ran == []


async def test_an_executor_that_is_not_there_is_named() -> None:
    async def plan(asked: Asked, run_on: RunOn) -> Outcome:
        del asked
        return await run_on("dagger")

    with pytest.raises(StepFailed, match="executor dagger") as caught:
        await Runner([Recording("process")], plan=plan).run(Asked(HOST, "it"))
    assert "process" in caught.value.fix


@pytest.mark.parametrize("code", [1, 127, 128, 137, 143, 191, 255])
async def test_any_exit_code_may_be_expected(code: int) -> None:
    """128 to 191 too, which an engine's own expectation leaves out."""
    runner = Runner([Recording("process", code)])
    assert (await runner.run(Asked(HOST.expect(code), "it"))).exit_code == code
    with pytest.raises(StepFailed) as caught:
        await runner.run(Asked(HOST, "it"))
    assert caught.value.exit_code == code


async def test_a_failure_carries_whether_the_step_may_be_repeated() -> None:
    executor = Recording("process")
    executor.raises = StepFailed("lost", key="it", error_class="transient", outcome_known=False)
    for spec, idempotent in ((HOST, False), (HOST.idempotent(), True)):
        with pytest.raises(StepFailed) as caught:
            await Runner([executor]).run(Asked(spec, "it"))
        assert (caught.value.idempotent, caught.value.outcome_known) == (idempotent, False)
        assert caught.value.executor == "process"


async def test_the_directory_of_a_run_is_gone_after_it() -> None:
    seen: list[Workspace] = []

    class Keeping(Recording):
        async def execute(
            self, spec: StepSpec, *, on_line: OnLine | None, workspace: Workspace
        ) -> Outcome:
            seen.append(workspace)
            locked = workspace.directory / "locked"
            locked.mkdir()
            (locked / "file").touch()
            locked.chmod(0o500)
            return await super().execute(spec, on_line=on_line, workspace=workspace)

    await Runner([Keeping("process")]).run(Asked(HOST, "it"))
    assert not seen[0].directory.exists()


async def test_what_a_dead_agent_left_is_removed_and_what_lives_is_kept(tmp_path: Path) -> None:
    dead = tmp_path / "sg-step-dead"
    (dead / "work").mkdir(parents=True)
    foreign = tmp_path / "other"
    foreign.mkdir()
    async with Workspace("it", root=tmp_path) as living:
        for path in (dead, foreign, living.directory):
            os.utime(path, (1, 1))
        young = tmp_path / "sg-step-young"
        young.mkdir()
        forget_dead(tmp_path)
        left = {path.name for path in tmp_path.iterdir()}  # noqa: ASYNC240 - a look
        assert left == {"other", "sg-step-young", living.directory.name}


@pytest.mark.parametrize(
    ("error", "error_class", "dependency"),
    [
        (Unavailable("the store is full", retry_after=7.0), "transient", "nats"),
        (StepFailed("too large", key="it", error_class="invalid"), "invalid", ""),
        (OSError(errno.ENOSPC, "full"), "resource", "resource:disk"),
        (ValueError("odd"), "transient", ""),
        (UsageError("no mesh"), "bug", ""),
    ],
    ids=repr,
)
async def test_what_fails_once_commands_have_begun_leaves_their_outcome_unknown(
    error: Exception, error_class: str, dependency: str
) -> None:
    """Whatever it is: that their outputs were not kept is no reason to run them again."""
    executor = Recording("process")
    executor.raises, executor.in_doubt = error, True
    with pytest.raises(StepFailed) as caught:
        await Runner([executor]).run(Asked(HOST, "it"))
    failed = caught.value
    assert (failed.error_class, failed.dependency) == (error_class, dependency)
    assert (failed.key, failed.executor, failed.outcome_known) == ("it", "process", False)
    found = verdict(failed)
    assert (found.outcome_known, found.retryable) == (False, False)
    assert found.retry_after == getattr(error, "retry_after", None)
    with pytest.raises(StepFailed) as caught:
        await Runner([executor]).run(Asked(HOST.idempotent(), "it"))
    assert verdict(caught.value).retryable


@pytest.mark.parametrize("error", [Unavailable("away"), ValueError("odd")], ids=repr)
async def test_what_fails_before_stays_what_it_is(error: Exception) -> None:
    executor = Recording("process")
    executor.raises = error
    with pytest.raises(type(error)) as caught:
        await Runner([executor]).run(Asked(HOST, "it"))
    assert caught.value is error
