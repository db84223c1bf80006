"""Steps run after what they need, once; failures, conditions, retries and artifacts do what the file says."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchgear.contract.artifact import Artifact
from switchgear.errors import BreakerOpen, Permanent, StepFailed
from switchgear.pipelines import files, plan
from switchgear.pipelines.model import Pipeline
from switchgear.steps.result import RunResult
from switchgear.steps.sources import git
from switchgear.steps.spec import command, container
from tests.unit.pipelines.graphs import pipelines
from tests.unit.pipelines.stage import Stage, failed, ran

TREE = Artifact(digest="a" * 64, size=3, name="tree", directory=True)


@given(pipeline=pipelines(), bad=st.sets(st.integers(0, 7), max_size=3))
def test_any_graph_runs_each_step_after_its_needs_and_once(
    pipeline: Pipeline, bad: set[int]
) -> None:
    names = {f"s{index}" for index in bad}
    stage = Stage(lambda key, _: failed(key) if key.partition("[")[0] in names else None)
    planned = plan.plan(pipeline, {}, "task-1")
    fatal = False
    try:
        result = asyncio.run(ran(pipeline, stage))
        assert [one.key for one in result.steps] == [job.key for job in planned.jobs]
        assert {one.key for one in result.steps if one.tries} == set(stage.order)
    except StepFailed:
        fatal = True
    # `Stage.run` refuses a second run of a key.
    for job in planned.jobs:
        if job.key in stage.order:
            began = stage.events.index(("began", job.key))
            for needed in planned.needed(job):
                if needed.key in stage.order:
                    assert stage.events.index(("ended", needed.key)) < began
    may_fail = {job.key for job in planned.jobs if job.step.allow_failure}
    assert fatal == any(
        key.partition("[")[0] in names and key not in may_fail for key in stage.order
    )
    assert stage.most <= pipeline.concurrency


@given(pipeline=pipelines())
def test_without_failures_and_conditions_everything_runs(pipeline: Pipeline) -> None:
    stage = Stage()
    result = asyncio.run(ran(pipeline, stage))
    for one in result.steps:
        condition = pipeline.step(one.step).condition
        assert one.state == ("skipped" if condition in {"false", "failed()"} else "success")


async def test_steps_that_need_nothing_of_each_other_run_at_the_same_time() -> None:
    stage = Stage()
    text = "concurrency = 2\n" + "".join(f'[steps.aaa{n}]\nrun = ["x"]\n' for n in range(4))
    await ran(text, stage)
    assert stage.most == 2


GRAPH = """
[steps.build]
run = ["make"]
[steps.test]
needs = ["build"]
run = ["make", "test"]
[steps.deploy]
needs = ["test"]
run = ["make", "deploy"]
[steps.clean]
needs = ["deploy"]
if = "always()"
run = ["make", "clean"]
[steps.mail]
needs = ["test"]
if = "failed()"
run = ["mail", "${{ steps.test.outcome }}", "${{ steps.test.exit_code }}"]
[steps.docs]
run = ["make", "docs"]
"""


async def test_a_failure_stops_what_needs_it_and_runs_what_waits_for_it() -> None:
    stage = Stage(lambda key, _: failed(key, exit_code=7) if key == "test" else None)
    with pytest.raises(StepFailed) as caught:
        await ran(GRAPH, stage)
    assert set(stage.order) == {"build", "test", "clean", "mail", "docs"}
    assert stage.specs["mail"].commands == (("mail", "failed", "7"),)
    assert (caught.value.key, caught.value.exit_code) == ("test", 7)
    assert "4 of 6 steps succeeded; test failed, deploy blocked" in caught.value.why


async def test_a_pipeline_that_fails_fast_begins_nothing_after_a_failure() -> None:
    stage = Stage(lambda key, _: failed(key) if key == "build" else None)
    with pytest.raises(StepFailed):
        await ran("fail_fast = true\nconcurrency = 1\n" + GRAPH, stage)
    assert stage.order == ["build", "mail", "clean"]


async def test_of_several_failures_the_one_that_no_retry_mends_is_told() -> None:
    def answer(key: str, _: object) -> StepFailed:
        return failed(key, error_class="transient" if key == "a" else "step")

    with pytest.raises(StepFailed) as caught:
        await ran('[steps.a]\nrun = ["a"]\n[steps.b]\nrun = ["b"]', Stage(answer))
    assert caught.value.key == "b"


RETRIED = '[steps.a]\nrun = ["a"]\nretry = {attempts = 3, on = ["transient"]}\n'


async def test_a_step_is_tried_again_by_its_policy_with_pauses_between() -> None:
    stage = Stage(lambda key, _: None if "3" in key else failed(key, error_class="transient"))
    result = await ran(RETRIED, stage)
    assert stage.order == ["a", "a try 2", "a try 3"]
    pauses = [("a try 2 pause", timedelta(seconds=1)), ("a try 3 pause", timedelta(seconds=2))]
    assert stage.slept == pauses
    assert (result.step("a").state, result.step("a").tries) == ("success", 3)


async def test_a_pause_is_as_long_as_the_failed_side_asks_for() -> None:
    def answer(key: str, _: object) -> StepFailed | None:
        error = failed(key, error_class="rate-limited")
        error.retry_after = 30.0
        return None if "3" in key else error

    stage = Stage(answer)
    await ran('[steps.a]\nrun = ["a"]\nretry = 3\n', stage)
    assert [pause for _, pause in stage.slept] == [timedelta(seconds=30)] * 2


async def test_a_step_that_is_refused_for_now_lets_those_that_run_come_to_their_end() -> None:
    """They are recorded then; killed in the middle, they would run again when the task goes on."""
    text = """
    [steps.b]
    run = ["b"]
    [steps.a]
    run = ["a"]
    [steps.after]
    needs = ["a"]
    run = ["x"]
    [steps.last]
    needs = ["b"]
    if = "always()"
    run = ["x"]
    """
    refused = BreakerOpen("the breaker of dagger is open", dependency="dagger", state="open")
    stage = Stage(lambda key, _: refused if key == "a" else None)
    with pytest.raises(BreakerOpen):
        await ran(text, stage)
    assert stage.events[-2:] == [("ended", "a"), ("ended", "b")]
    assert stage.order == ["b", "a"]


async def test_a_class_that_the_policy_does_not_name_is_final() -> None:
    stage = Stage(lambda key, _: failed(key, error_class="invalid"))
    with pytest.raises(StepFailed):
        await ran(RETRIED, stage)
    assert stage.order == ["a"]


@pytest.mark.parametrize("idempotent", [False, True])
async def test_work_of_unknown_outcome_is_tried_again_only_where_it_may_run_twice(
    *, idempotent: bool
) -> None:
    def answer(key: str, _: object) -> StepFailed:
        error = failed(key, error_class="transient")
        error.outcome_known = False
        error.idempotent = idempotent
        return error

    stage = Stage(answer)
    with pytest.raises(StepFailed):
        await ran(f"{RETRIED}idempotent = {str(idempotent).lower()}\n", stage)
    assert len(stage.order) == (3 if idempotent else 1)


async def test_a_step_that_may_fail_does_not_fail_the_pipeline() -> None:
    text = """
    [steps.lint]
    run = ["lint"]
    allow_failure = true
    [steps.test]
    needs = ["lint"]
    run = ["test", "${{ steps.lint.outcome }}"]
    """
    stage = Stage(lambda key, _: failed(key) if key == "lint" else None)
    result = await ran(text, stage)
    assert (result.step("lint").state, result.step("lint").allowed) == ("failed", True)
    assert stage.specs["test"].commands == (("test", "failed"),)


ARTIFACTS = """
[steps.build]
matrix.os = ["mac/x", "mac_x"]
run = ["make"]
outputs.tree = "out"
[steps.one]
run = ["make"]
outputs.tree = "out"
[steps.pack]
needs = ["build", "one"]
run = ["tar"]
mounts."/all" = { artifact = "build.tree" }
mounts."/one" = { artifact = "one.tree" }
"""


async def test_artifacts_are_mounted_and_those_of_a_matrix_side_by_side() -> None:
    made = RunResult(exit_code=0, outputs={"tree": TREE})
    stage = Stage(lambda key, _: None if key == "pack" else made)
    result = await ran(ARTIFACTS, stage)
    mounts = stage.specs["pack"].mounts
    assert [one.path for one in mounts] == ["/all/os=mac_x", "/all/os=mac~1x", "/one"]
    assert all(one.source == TREE for one in mounts)
    assert result.step("build[os=mac/x]").artifacts == {"tree": TREE}


async def test_a_step_whose_artifact_was_not_made_does_not_run() -> None:
    text = """
    [steps.build]
    if = "false"
    run = ["make"]
    outputs.tree = "out"
    [steps.pack]
    needs = ["build"]
    run = ["tar"]
    mounts."/in" = { artifact = "build.tree" }
    """
    stage = Stage()
    result = await ran(text, stage)
    assert stage.order == []
    assert result.step("pack").why == "there is no artifact tree of build, which was skipped"


PARAMETERS = """
[parameters.versions]
type = "list"
default = ["3.11", "3.12"]
[parameters.ref]
type = "string"
default = ""
[steps.test]
matrix = { python = "${{ params.versions }}", os = ["linux", "mac"] }
exclude = [{ python = "3.11", os = "mac" }]
run = ["test", "${{ params.versions }}", "--on=${{ matrix.os }}"]
env = { REF = "${{ params.ref or 'HEAD' }}" }
[steps.say]
script = 'echo "$TASK"'
env.TASK = "${{ task.id }}"
[outputs]
task = "${{ fromjson(steps.say.stdout).id }}"
"""


async def test_parameters_make_matrices_arguments_and_results() -> None:
    said = RunResult(exit_code=0, stdout='{"id": "task-1"}\n')
    stage = Stage(lambda key, _: said if key == "say" else None)
    result = await ran(PARAMETERS, stage, versions=["3.11", "3.13"])
    assert [one.key for one in result.steps] == [
        "test[python=3.11,os=linux]", "test[python=3.13,os=linux]", "test[python=3.13,os=mac]",
        "say",
    ]  # fmt: skip
    spec = stage.specs["test[python=3.13,os=mac]"]
    assert spec.commands == (("test", "3.11", "3.13", "--on=mac"),)
    assert spec.environment == (("REF", "HEAD"),)
    assert stage.specs["say"].commands == (("sh", "-euc", 'echo "$TASK"'),)
    assert result.outputs == {"task": "task-1"}


async def test_combinations_that_look_the_same_are_refused_before_anything_runs() -> None:
    text = """
    [parameters.a]
    type = "list"
    [parameters.b]
    type = "list"
    [steps.test]
    matrix = { a = "${{ params.a }}", b = "${{ params.b }}" }
    run = ["test"]
    """
    stage = Stage()
    with pytest.raises(Permanent, match=r"two jobs are named test\[a=x,b=y,b=z\]"):
        await ran(text, stage, a=["x", "x,b=y"], b=["z", "y,b=z"])
    with pytest.raises(Permanent, match="the name of a job of test is longer than"):
        await ran(text, stage, a=["x" * 300], b=["y"])
    assert stage.order == []


async def test_too_many_combinations_are_refused_before_anything_runs() -> None:
    stage = Stage()
    with pytest.raises(Permanent, match="66 combinations are more than 64"):
        await ran(PARAMETERS, stage, versions=[str(number) for number in range(33)])
    assert stage.order == []


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ('run = ["x"]\nif = "params.n"', "a condition is true or false"),
        ('run = ["${{ params.n }}"]\nif = "params.n < \'a\'"', "have no order"),
        ('run = ["x", "a${{ params.many }}"]', "cannot stand in a text"),
        ('run = ["${{ params.many }}"]', "the command has no program"),
        ('run = ["x"]\nmounts."/in" = "${{ params.text }}"', "no absolute path"),
        ('run = ["x"]\nimage = "${{ params.text }} !"', "is no image"),
        ('run = ["x"]\nimage = "${{ params.root }}"', "is no registry reference"),
        ('run = ["x"]\nimage = "x:${{ params.up }}"', "leads upwards"),
        ('run = ["x"]\nimage = "rootfs:/images/${{ params.up }}"', "leads upwards"),
        ('run = ["x"]\nmounts."/in" = "/srv/${{ params.up }}"', "leads upwards"),
        ('run = ["x"]\nworkdir = "/srv/${{ params.up }}"', "leads upwards"),
    ],
)
async def test_what_only_a_run_can_tell_fails_the_step_as_invalid(step: str, why: str) -> None:
    text = f"""
    [parameters]
    n = {{ type = "integer", default = 1 }}
    many = {{ type = "list", default = [] }}
    text = {{ type = "string", default = "x" }}
    root = {{ type = "string", default = "rootfs:/" }}
    up = {{ type = "string", default = "../../etc" }}
    [steps.a]
    {step.replace('if = "params.n"', 'if = "params.n or false"')}
    """
    stage = Stage()
    with pytest.raises(StepFailed) as caught:
        await ran(text, stage)
    assert caught.value.error_class == "invalid"
    assert why in caught.value.why
    assert stage.order == []


EVERY_KEY = """
image = "python:3.12"
env = { A = "1", B = "1" }
[parameters.ref]
type = "string"
default = "main"
[steps.a]
run = [["one", "${{ params.ref }}"], ["two"]]
workdir = "/src"
env.B = "${{ params.ref }}"
secrets.TOKEN = "env://TOKEN"
mounts."/src" = { git = "https://example.org/x.git", ref = "${{ params.ref }}", writable = true }
mounts."/data" = "/srv/data"
caches."/cache" = "packages"
outputs.log = "out.log"
stdin = "for ${{ params.ref }}"
timeout = "5m"
cpu = "1m"
memory = "64MiB"
network = true
expect = [0, 3]
idempotent = true
cacheable = true
[steps.b]
image = ""
script = "print(1)"
interpreter = ["python3", "-c"]
[steps.c]
image = ""
run = ["true"]
mounts."/data" = "/srv/data"
"""


async def test_every_key_of_a_step_reaches_its_spec() -> None:
    stage = Stage()
    await ran(EVERY_KEY, stage, ref="v1")
    assert stage.specs["a"] == (
        container("python:3.12")
        .exec("one", "v1")
        .exec("two")
        .workdir("/src")
        .env(A="1", B="v1")
        .secret("TOKEN", "env://TOKEN")
        .mount("/src", git("https://example.org/x.git", "v1"), read_only=False)
        .mount("/data", "/srv/data")
        .cache("/cache", "packages")
        .output("log", "out.log")
        .stdin("for v1")
        .limits(timeout=timedelta(minutes=5), cpu=timedelta(minutes=1), memory=64 * 2**20)
        .network()
        .expect(0, 3)
        .idempotent()
        .cacheable()
    )
    assert stage.specs["b"] == command("python3", "-c", "print(1)").env(A="1", B="1")
    host = command("true").mount("/data", "/srv/data").env(A="1", B="1").on_host()
    assert stage.specs["c"] == host, (
        "an engine would have a copy of the files, or lose what is written"
    )
    assert files.parse("x.toml", EVERY_KEY).step("b").image == ""


async def test_an_optional_artifact_may_be_missing() -> None:
    text = """
    [steps.a]
    if = "false"
    run = ["a"]
    outputs.tree = "t"
    [steps.b]
    needs = ["a"]
    run = ["b", "-${{ steps.a.outputs.tree }}-"]
    mounts."/in" = { artifact = "a.tree", optional = true }
    """
    stage = Stage()
    await ran(text, stage)
    assert stage.specs["b"] == command("b", "--")


async def test_outputs_without_a_value_end_the_task() -> None:
    text = '[steps.a]\nrun = ["a"]\n[outputs]\nx = "${{ fromjson(steps.a.stdout) }}"'
    with pytest.raises(Permanent, match="an output of the pipeline has no value"):
        await ran(text, Stage())


@pytest.mark.parametrize("value", ["[[1]]", "3", "{"])
async def test_an_axis_holds_texts_and_numbers(value: str) -> None:
    text = """
    [parameters.given]
    type = "string"
    [steps.a]
    matrix.x = "${{ fromjson(params.given) }}"
    run = ["a"]
    """
    with pytest.raises(Permanent, match="the pipeline made cannot run: a: "):
        await ran(text, Stage(), given=value)
