"""A pipeline survives the death of its process anywhere, and pauses give up their slot."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from switchgear import testing
from switchgear.agent.declare import Agent
from switchgear.agent.pipelines import PipelineResult, load_pipelines
from switchgear.contract.capability import Capability
from switchgear.errors import Retryable, StepFailed, TaskRejected
from switchgear.testing.mesh import MemoryMesh, mesh

TEXT = """
attempts = 2
[parameters.who]
type = "string"
[steps.prepare]
run = ["true"]
[steps.test]
needs = ["prepare"]
matrix.v = [1, 2]
run = ["true"]
[steps.report]
needs = ["test"]
run = ["echo", "${{ params.who }} ${{ steps.prepare.stdout }}"]
[outputs]
said = "${{ steps.report.stdout }}"
"""
MADE = Capability("made", object, PipelineResult)


def agent_of(tmp_path: Path, text: str) -> Agent:
    (tmp_path / "made.toml").write_text(text, "utf-8")
    agent = Agent("made", version="1.0.0")
    load_pipelines(agent, tmp_path)
    return agent


async def test_a_crash_anywhere_changes_nothing(tmp_path: Path) -> None:
    def prepare(made: MemoryMesh) -> None:
        for key in ("prepare", "test[v=1]", "test[v=2]", "report"):
            made.fake_run(key, stdout=f"{key} ran\n")

    results: dict[str, Any] = await testing.crash_everywhere(
        MADE, {"who": "Ada"}, agent_of(tmp_path, TEXT), prepare=prepare
    )
    assert len(results) == 1 + 2 * 5
    first = next(iter(results.values()))
    assert first.outputs == {"said": "report ran"}
    assert all(one == first for one in results.values())


async def test_a_later_attempt_runs_only_what_has_not_succeeded(tmp_path: Path) -> None:
    async with mesh(agent_of(tmp_path, TEXT)) as made:
        for key in ("prepare", "test[v=1]", "test[v=2]", "report"):
            made.fake_run(key)
        made.faults.fail("test[v=2]", Retryable("the network is away"))
        task = await made.submit(MADE, {"who": "Ada"})
        result = (await task.result()).step("test[v=2]")
        assert (result.state, result.tries) == ("success", 1)
        ran = [made.runs(task, key) for key in ("prepare", "test[v=1]", "test[v=2]", "report")]
        assert ran == [1, 1, 2, 1]


async def test_what_succeeded_at_a_second_try_is_not_run_again_by_a_later_attempt(
    tmp_path: Path,
) -> None:
    text = """
    attempts = 2
    [steps.deploy]
    run = ["true"]
    retry = { attempts = 3, initial = "1s" }
    [steps.test]
    needs = ["deploy"]
    run = ["true"]
    """
    async with mesh(agent_of(tmp_path, text)) as made:
        made.fake_run("deploy", exit_code=1)
        made.fake_run("deploy try 2", stdout="done")
        made.fake_run("test")
        made.faults.fail("test", Retryable("the network is away"))
        task = await made.submit(MADE, {})
        result = await task.result()
        ran = [made.runs(task, key) for key in ("deploy", "deploy try 2", "deploy try 3", "test")]
        assert ran == [1, 1, 0, 2]
        assert (result.step("deploy").tries, result.step("deploy").stdout) == (2, "done")


async def test_a_step_that_asks_for_a_status_runs_in_each_attempt(tmp_path: Path) -> None:
    """What it says, and what it cleans up, is of the attempt in which it ran."""
    text = """
    attempts = 2
    [steps.test]
    run = ["true"]
    [steps.mail]
    needs = ["test"]
    if = "always()"
    run = ["echo", "${{ steps.test.outcome }}"]
    """
    async with mesh(agent_of(tmp_path, text)) as made:
        made.fake_run("test")
        made.fake_run("mail")
        made.fake_run("mail of attempt 2", stdout="second")
        made.faults.fail("test", StepFailed("away", key="test", error_class="transient"))
        task = await made.submit(MADE, {})
        result = await task.result()
        assert result.step("mail").stdout == "second"
        assert [made.runs(task, key) for key in ("test", "mail", "mail of attempt 2")] == [2, 1, 1]


async def test_a_step_may_see_another_outcome_of_one_that_may_fail_in_a_later_attempt(
    tmp_path: Path,
) -> None:
    text = """
    attempts = 2
    [steps.lint]
    run = ["true"]
    allow_failure = true
    [steps.tell]
    needs = ["lint"]
    run = ["echo", "${{ steps.lint.outcome }}"]
    [steps.keep]
    needs = ["lint"]
    run = ["true"]
    [steps.test]
    needs = ["tell", "keep"]
    run = ["true"]
    """
    async with mesh(agent_of(tmp_path, text)) as made:
        for key in ("lint", "tell", "tell of attempt 2", "keep", "test"):
            made.fake_run(key)
        made.faults.fail("lint", StepFailed("odd", key="lint", exit_code=1))
        made.faults.fail("test", StepFailed("away", key="test", error_class="transient"))
        task = await made.submit(MADE, {})
        result = await task.result()
        assert [one.state for one in result.steps] == ["success"] * 4
        ran = [made.runs(task, key) for key in ("lint", "tell", "tell of attempt 2", "keep")]
        assert ran == [2, 1, 1, 1]


async def test_a_crash_changes_nothing_of_a_failure_that_is_allowed(tmp_path: Path) -> None:
    text = """
    [steps.lint]
    run = ["true"]
    allow_failure = true
    [steps.test]
    needs = ["lint"]
    run = ["true"]
    """

    def prepare(made: MemoryMesh) -> None:
        made.fake_run("lint", exit_code=3)
        made.fake_run("test")

    results = await testing.crash_everywhere(MADE, {}, agent_of(tmp_path, text), prepare=prepare)
    first = next(iter(results.values()))
    assert first.step("lint").exit_code == 3
    assert all(one == first for one in results.values())


async def test_a_long_pause_between_tries_gives_up_the_slot(tmp_path: Path) -> None:
    text = """
    [steps.a]
    run = ["false"]
    retry = { attempts = 3, initial = "10m", max_delay = "1h" }
    """
    async with mesh(agent_of(tmp_path, text)) as made:
        made.fake_run("a", exit_code=1)
        made.fake_run("a try 2", exit_code=1)
        made.fake_run("a try 3", stdout="at last")
        task = await made.submit(MADE, {})
        await made.advance(timedelta(minutes=1))
        assert (await task.status()).state == "waiting"
        result = await task.result()
        assert (result.step("a").tries, result.step("a").stdout) == (3, "at last")
        assert [made.runs(task, key) for key in ("a", "a try 2", "a try 3")] == [1, 1, 1]


async def test_an_input_that_is_not_declared_is_rejected_at_admission(tmp_path: Path) -> None:
    async with mesh(agent_of(tmp_path, TEXT)) as made:
        for bad in ({}, {"who": 3}, {"who": "Ada", "what": 1}):
            with pytest.raises(TaskRejected) as caught:
                await made.call(MADE, bad)
            assert caught.value.cause_code == "SG1203"
