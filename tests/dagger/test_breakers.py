"""What the breakers of registries and git hosts count on an engine: their own calls, and not the steps around these."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from switchgear.clock import SYSTEM
from switchgear.contract.announcement import BreakerState
from switchgear.contract.artifact import Artifact
from switchgear.errors import BreakerOpen
from switchgear.resilience.breaker import Breaker
from switchgear.steps.guard import MET, Guards
from switchgear.steps.sources import git
from switchgear.steps.spec import StepSpec, container
from tests.dagger.conftest import MakeBench
from tests.dagger.engine import Engine, Fault
from tests.dagger.steps import IMAGE, Bench, shell, until

OTHER = "registry.example/other:1"
PINNED = f"registry.example/tools@sha256:{'0' * 64}"
HOST = "registry:registry.example"
GIT = "git:127.0.0.1"
BUSY = "failed to copy: httpReadSeeker: 429 Too Many Requests"


class Clock:
    """Seconds that tests set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guards(clock: Clock) -> Guards:
    policy = Breaker(in_a_row=2, open_for=timedelta(seconds=30), jitter=0.0)
    return Guards({"*": policy}, monotonic=clock, dice=lambda: 0.0)


@pytest.fixture
def guarded(make_bench: MakeBench, guards: Guards) -> Bench:
    return make_bench(guards=guards)


def stands(guards: Guards, name: str) -> BreakerState | None:
    """How this breaker stands; None: nobody has asked for it."""
    return next((one for one in guards.snapshot(SYSTEM.now()) if one.dependency == name), None)


def calls(guards: Guards, name: str) -> tuple[int, float]:
    """How many it has counted, and the share of them that failed."""
    found = stands(guards, name)
    return (0, 0.0) if found is None else (found.calls, found.failure_rate)


async def refused(bench: Bench, spec: StepSpec, name: str) -> None:
    """The step is not run, because of this breaker."""
    with pytest.raises(BreakerOpen) as caught:
        await bench.run(spec)
    assert caught.value.dependency == name


async def broken(bench: Bench, engine: Engine) -> None:
    """Open the registry's breaker; the registry is well again when this returns."""
    engine.evaluation.registries["registry.example"] = BUSY
    for _ in range(2):
        assert (await bench.failure(shell("true", OTHER))).error_class == "rate-limited"
    engine.evaluation.registries.clear()


# --- registries


async def test_only_steps_that_pull_are_calls_to_a_registry(
    guarded: Bench, guards: Guards, engine: Engine
) -> None:
    for _ in range(3):
        await guarded.run(shell("true"))
    assert engine.evaluation.pulls == [IMAGE]
    assert (calls(guards, HOST), calls(guards, "dagger")) == ((1, 0.0), (3, 0.0))


async def test_steps_that_want_the_same_image_at_once_share_one_pull(
    make_bench: MakeBench, guards: Guards, engine: Engine
) -> None:
    bench = make_bench(guards=guards, concurrency=8)
    engine.evaluation.registries["registry.example"] = "hang"
    steps = [bench.begin(shell("true")) for _ in range(4)]
    await until(lambda: bool(engine.evaluation.pulls))
    engine.evaluation.registries.clear()
    steps[0].cancel()  # whoever pulled may leave: the next one does it
    await asyncio.wait(steps)
    assert [step.result().exit_code for step in steps[1:]] == [0] * 3
    assert engine.evaluation.pulls == [IMAGE] * 2
    assert (calls(guards, HOST), engine.host.started) == ((1, 0.0), 3)


async def test_a_pull_that_hangs_is_not_tried_by_each_step_that_waits_for_it(
    make_bench: MakeBench, guards: Guards, engine: Engine
) -> None:
    engine.evaluation.registries["registry.example"] = "hang"
    guards.command(HOST, "close", "ana", "")  # or the second failure would open it
    bench = make_bench(guards=guards, concurrency=8, pull_timeout=timedelta(milliseconds=400))
    ended = await asyncio.gather(*(bench.failure(shell("true")) for _ in range(6)))
    assert {one.error_class for one in ended} == {"timeout"}
    assert {one.dependency for one in ended} == {HOST}
    assert 0 < calls(guards, HOST)[0] < 6


async def test_a_step_that_fails_after_its_pull_is_no_call_to_a_registry(
    guarded: Bench, guards: Guards
) -> None:
    for _ in range(2):
        assert (await guarded.failure(shell("exit 3"))).exit_code == 3
    assert (calls(guards, HOST), calls(guards, "dagger")) == ((1, 0.0), (2, 0.0))


async def test_an_open_registry_refuses_what_needs_a_pull_and_nothing_else(
    guarded: Bench, guards: Guards, engine: Engine
) -> None:
    await guarded.run(shell("true"))
    await broken(guarded, engine)
    assert (await guarded.run(shell("echo there"))).stdout == "there\n"
    asked = len(engine.evaluation.pulls)
    await refused(guarded, shell("true", OTHER), HOST)
    await refused(guarded, shell("true").service("db", container(OTHER).exec("sleep", "9")), HOST)
    assert (await guarded.run(shell("true", "other.example/tools:1"))).exit_code == 0
    assert len(engine.evaluation.pulls) == asked + 1
    assert (engine.opened, engine.host.started) == (1, 3)
    found = stands(guards, "dagger")
    assert found is not None
    assert (found.state, found.failure_rate, found.busy) == ("closed", 0.0, 0)


async def test_a_step_without_a_pull_never_closes_the_breaker_of_a_registry(
    guarded: Bench, guards: Guards, engine: Engine, clock: Clock
) -> None:
    await guarded.run(shell("true"))
    await broken(guarded, engine)
    clock.now += 31
    await guarded.run(shell("true"))
    found = stands(guards, HOST)
    assert found is not None
    assert found.state == "open"
    await guarded.run(shell("true", OTHER))
    found = stands(guards, HOST)
    assert found is not None
    assert found.state == "closed"


async def test_only_a_step_that_pulls_says_that_its_task_needs_the_registry(guarded: Bench) -> None:
    """So that tasks whose images are there are pulled while a registry is down."""
    first: set[str] = set()
    second: set[str] = set()
    for met in (first, second):
        token = MET.set(met)
        await guarded.run(shell("true"))
        MET.reset(token)
    assert "dagger" in second
    assert first == {*second, HOST}


@pytest.mark.parametrize(
    ("text", "error_class"),
    [("unexpected status: 401 Unauthorized", "auth"), ("tools:1: not found", "invalid")],
)
async def test_a_registry_that_refuses_is_well(
    guarded: Bench, guards: Guards, engine: Engine, text: str, error_class: str
) -> None:
    engine.evaluation.registries["registry.example"] = text
    for _ in range(3):
        assert (await guarded.failure(shell("true"))).error_class == error_class
    assert (calls(guards, HOST), calls(guards, "dagger")) == ((3, 0.0), (3, 0.0))


async def test_a_registry_that_never_answers_is_a_failure_of_it_alone(
    make_bench: MakeBench, guards: Guards, engine: Engine
) -> None:
    engine.evaluation.registries["registry.example"] = "hang"
    bench = make_bench(guards=guards, pull_timeout=timedelta(milliseconds=100))
    assert (await bench.failure(shell("true"))).error_class == "timeout"
    assert (calls(guards, HOST), calls(guards, "dagger")) == ((1, 1.0), (0, 0.0))


async def test_an_engine_that_dies_during_a_pull_says_nothing_of_the_registry(
    guarded: Bench, guards: Guards, engine: Engine
) -> None:
    engine.faults.append(Fault("drop-before", contains="sync", times=2))
    assert (await guarded.failure(shell("true"))).dependency == "dagger"
    assert (calls(guards, HOST), calls(guards, "dagger")) == ((0, 0.0), (1, 1.0))


async def test_a_cancelled_pull_gives_its_permit_back(
    guarded: Bench, guards: Guards, engine: Engine
) -> None:
    engine.evaluation.registries["registry.example"] = "hang"
    step = guarded.begin(shell("true"))
    await until(lambda: bool(engine.evaluation.pulls))
    step.cancel()
    await asyncio.wait([step])
    found = stands(guards, HOST)
    assert found is not None
    assert (found.busy, found.calls) == (0, 0)


async def test_an_image_with_a_digest_needs_no_registry_in_later_sessions(
    guarded: Bench, guards: Guards, engine: Engine
) -> None:
    for image in (PINNED, IMAGE):
        await guarded.run(shell("true", image))
    await guarded.executor.close()
    guards.command(HOST, "open", "ana", "")
    steps = [guarded.begin(shell("echo there", PINNED)) for _ in range(3)]
    assert [(await step).stdout for step in steps] == ["there\n"] * 3
    await refused(guarded, shell("true"), HOST)
    assert engine.opened == 2
    assert engine.evaluation.pulls == [PINNED, IMAGE]


async def test_an_engine_that_was_killed_needs_the_registry_for_images_with_a_digest_too(
    guarded: Bench, guards: Guards, engine: Engine
) -> None:
    await guarded.run(shell("true", PINNED))
    step = guarded.begin(shell("sleep 1000", PINNED))
    await engine.running(2)
    await engine.kill()
    await asyncio.wait([step])
    assert step.exception() is not None
    await engine.start()
    guards.command(HOST, "open", "ana", "")
    await refused(guarded, shell("true", PINNED), HOST)


async def test_an_engine_that_has_dropped_an_image_with_a_digest_is_asked_under_the_breaker_again(
    guarded: Bench, guards: Guards, engine: Engine
) -> None:
    await guarded.run(shell("true", PINNED))
    await guarded.executor.close()
    engine.evaluation.pulled.clear()
    engine.evaluation.registries["registry.example"] = BUSY
    for failures in (0, 1):
        assert (await guarded.failure(shell("true", PINNED))).error_class == "rate-limited"
        found = stands(guards, HOST)
        assert found is not None
        assert round(found.calls * found.failure_rate) == failures


async def test_archives_have_no_registry(guarded: Bench, guards: Guards, engine: Engine) -> None:
    archive = engine.folder / "image.tar"
    archive.write_bytes(b"any")
    await guarded.run(shell("true", f"oci:{archive}"))
    asked = {one.dependency for one in guards.snapshot(SYSTEM.now())}
    assert not any(one.startswith("registry:") for one in asked)


# --- git hosts


async def test_a_git_host_that_is_down_is_asked_no_more_and_the_engine_is_well(
    guarded: Bench, guards: Guards, engine: Engine
) -> None:
    spec = shell("true").mount("/src", git("https://127.0.0.1:9/repository", "main"))
    for _ in range(2):
        failed = await guarded.failure(spec)
        assert (failed.error_class, failed.dependency) == ("transient", GIT)
    await refused(guarded, spec, GIT)
    await refused(guarded, shell("true").service("db", _mounting(spec)), GIT)
    assert (calls(guards, "dagger"), engine.opened) == ((0, 0.0), 0)
    assert (await guarded.run(shell("true"))).exit_code == 0


async def test_a_git_host_that_hangs_fails_the_step_at_its_limit_and_speaks_against_the_host(
    guarded: Bench, guards: Guards, engine: Engine
) -> None:
    async with await asyncio.start_server(_silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        source = git(f"https://127.0.0.1:{port}/repository", "main")
        limited = shell("true").limits(timeout=timedelta(seconds=1))
        for spec in (
            limited.mount("/src", source),
            limited.service("db", _mounting(limited, source)),
        ):
            failed = await guarded.failure(spec)
            assert (failed.error_class, failed.dependency) == ("timeout", GIT)
            assert failed.outcome_known
    assert (calls(guards, GIT), engine.opened) == ((2, 1.0), 0)


async def test_a_store_that_hangs_fails_the_step_at_its_limit_and_speaks_against_nobody(
    guarded: Bench, guards: Guards, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(digest: str) -> bytes:
        del digest
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(guarded.store, "get", hang)
    spec = shell("true").mount("/x", Artifact(digest=f"sha256:{'0' * 64}", size=1))
    failed = await guarded.failure(spec.limits(timeout=timedelta(milliseconds=100)))
    assert (failed.error_class, failed.dependency, failed.outcome_known) == ("timeout", "", True)
    assert (calls(guards, "dagger"), engine.opened) == ((0, 0.0), 0)


def _mounting(spec: StepSpec, source: object = None) -> StepSpec:
    """A service with the mount of this step, or of this source."""
    found = spec.mounts[0].source if source is None else source
    return container(IMAGE).exec("sleep", "1000").mount("/src", found)  # type: ignore[arg-type]


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take what comes, and never answer."""
    await reader.read(-1)
    writer.close()
