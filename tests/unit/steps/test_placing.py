"""Which executor a step without an image gets, and with which image."""

from __future__ import annotations

import pytest

from switchgear.errors import ConfigError
from switchgear.steps.executor import Asked, Executor, Health, OnLine, Plan, RunOn, Unsupported
from switchgear.steps.result import Outcome
from switchgear.steps.runner import Runner
from switchgear.steps.settings import StepSettings
from switchgear.steps.spec import StepSpec, command, container
from switchgear.steps.workspace import Workspace

PLAIN = command("make")


class Noted:
    """An executor that runs nothing and keeps the specs that it got."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.got: list[StepSpec] = []

    def unsupported(self, spec: StepSpec) -> Unsupported | None:
        del spec
        return None

    def dependencies(self, spec: StepSpec) -> tuple[str, ...]:
        del spec
        return ()

    async def execute(
        self, spec: StepSpec, *, on_line: OnLine | None, workspace: Workspace
    ) -> Outcome:
        del on_line, workspace
        self.got.append(spec)
        return Outcome(exit_code=0, executor=self.name, isolation="none")

    async def health(self) -> Health:
        return Health(ok=True)

    async def close(self) -> None:
        """Nothing is held."""


async def placed(
    spec: StepSpec, image: str, *, engine: bool = True, plan: Plan | None = None
) -> tuple[str, str | None]:
    """Which executor ran it, and the image that this one saw."""
    both = [Noted("process"), Noted("dagger")] if engine else [Noted("process")]
    executors: list[Executor] = [*both]
    await Runner(executors, plan=plan, engine_image=image).run(Asked(spec, "it"))
    (ran,) = [one for one in both if one.got]
    return ran.name, ran.got[0].image


@pytest.mark.parametrize(
    ("spec", "image", "expected"),
    [
        (PLAIN, "", ("process", None)),
        (PLAIN, "python:3.12", ("dagger", "python:3.12")),
        (PLAIN.on_host(), "python:3.12", ("process", None)),
        (PLAIN.mount("/out", "/srv", read_only=False), "python:3.12", ("process", None)),
        (PLAIN.mount("/in", "/srv"), "python:3.12", ("dagger", "python:3.12")),
        (PLAIN.service("a", PLAIN.on_host()), "python:3.12", ("process", None)),
        (container("alpine").exec("true"), "python:3.12", ("dagger", "alpine")),
        (container("alpine").exec("true"), "", ("dagger", "alpine")),
    ],
)
async def test_a_step_without_an_image_goes_to_the_engine_where_one_is_set_for_it(
    spec: StepSpec, image: str, expected: tuple[str, str | None]
) -> None:
    assert await placed(spec, image) == expected


async def test_services_without_an_image_get_the_engines_too() -> None:
    engine = Noted("dagger")
    runner = Runner([Noted("process"), engine], engine_image="python:3.12")
    both = PLAIN.service("a", command("serve")).service("b", container("alpine").exec("serve"))
    await runner.run(Asked(both, "it"))
    assert [one.image for one in engine.got[0].specs] == ["python:3.12", "python:3.12", "alpine"]


async def test_without_an_engine_it_is_a_process() -> None:
    assert await placed(PLAIN, "python:3.12", engine=False) == ("process", None)


async def test_a_plan_that_chooses_the_engine_leaves_what_is_the_hosts_on_the_host() -> None:
    async def on_engine(asked: Asked, run_on: RunOn) -> Outcome:
        del asked
        return await run_on("dagger")

    assert await placed(PLAIN, "python:3.12", plan=on_engine) == ("dagger", "python:3.12")
    assert await placed(PLAIN.on_host(), "python:3.12", plan=on_engine) == ("process", None)
    assert await placed(PLAIN, "", plan=on_engine) == ("dagger", None)


def test_the_engines_image_is_a_setting() -> None:
    assert StepSettings.load({}).engine_image == ""
    assert StepSettings.load({"SWITCHGEAR_ENGINE_IMAGE": "oci:/i.tar"}).engine_image == "oci:/i.tar"
    with pytest.raises(ConfigError, match="SWITCHGEAR_ENGINE_IMAGE"):
        StepSettings.load({"SWITCHGEAR_ENGINE_IMAGE": "no image"})
