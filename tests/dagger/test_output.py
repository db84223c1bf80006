"""Lines of a step in an engine: each once and in order, while it runs where that can be, else in the end."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from pathlib import Path

import pytest

from switchgear.errors import StepFailed
from switchgear.steps.executors.dagger.settings import ProvidedSession
from switchgear.steps.result import RunResult
from switchgear.steps.spec import StepSpec
from tests.dagger.conftest import MakeBench
from tests.dagger.engine import Engine
from tests.dagger.steps import Bench, shell, until

GATE = "while [ ! -e /gate/{0} ]; do sleep 0.02; done"
"""Holds a command up until the test opens it."""


class Watched:
    """A step under way, its lines, and the gates that hold it up."""

    def __init__(self, bench: Bench, spec: StepSpec, gates: Path) -> None:
        self.lines: list[tuple[str, str]] = []
        self._gates = gates
        spec = spec.cache("/gate", "gate")
        self.task = asyncio.ensure_future(bench.run(spec, self._on_line))

    def _on_line(self, stream: str, line: str) -> None:
        self.lines.append((stream, line))

    async def seen(self, *lines: tuple[str, str]) -> None:
        """Return when exactly these have come, while the step still runs."""
        await until(lambda: len(self.lines) >= len(lines) or self.task.done(), 20)
        assert self.lines == list(lines)
        assert not self.task.done()

    def open(self, gate: str) -> None:
        (self._gates / gate).touch()

    async def failed(self) -> StepFailed:
        with pytest.raises(StepFailed) as caught:
            await self.task
        return caught.value


@pytest.fixture
def gates(engine: Engine) -> Path:
    """The directory that steps see as `/gate`."""
    folder = engine.host.folder / "cache-switchgear-gate"
    folder.mkdir()
    return folder


def out(line: str) -> tuple[str, str]:
    return "stdout", line


def err(line: str) -> tuple[str, str]:
    return "stderr", line


async def test_a_line_is_told_while_the_command_still_runs_and_never_again(
    bench: Bench, gates: Path
) -> None:
    text = f"echo one; {GATE.format(1)}; echo two >&2; {GATE.format(2)}; echo three; printf four"
    step = Watched(bench, shell(text), gates)
    await step.seen(out("one"))
    step.open("1")
    await step.seen(out("one"), err("two"))
    step.open("2")
    result = await step.task
    assert step.lines == [out("one"), err("two"), out("three"), out("four")]
    assert (result.stdout, result.stderr) == ("one\nthree\nfour", "two\n")


@pytest.mark.parametrize("cacheable", [False, True])
async def test_lines_of_a_step_that_fails_are_told_once(
    bench: Bench,
    gates: Path,
    cacheable: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    text = f"echo one; echo two >&2; {GATE.format(1)}; echo three; echo four >&2; exit 3"
    spec = shell(text).cacheable() if cacheable else shell(text)
    step = Watched(bench, spec, gates)
    await step.seen(out("one"), err("two"))
    step.open("1")
    failed = await step.failed()
    assert step.lines == [out("one"), err("two"), out("three"), err("four")]
    assert (failed.exit_code, failed.stdout, failed.stderr) == (3, "one\nthree\n", "two\nfour\n")


async def test_lines_of_a_step_that_meets_its_limit_are_told_once(
    bench: Bench, gates: Path
) -> None:
    spec = shell("echo one; printf two; sleep 1000").limits(timeout=timedelta(seconds=2))
    step = Watched(bench, spec, gates)
    await step.seen(out("one"))
    assert (await step.failed()).error_class == "timeout"
    assert step.lines == [out("one"), out("two")]


async def test_a_step_that_is_cancelled_has_told_its_lines_and_tells_no_more(
    bench: Bench, engine: Engine, gates: Path
) -> None:
    step = Watched(bench, shell("echo one; sleep 1000"), gates)
    await step.seen(out("one"))
    step.task.cancel()
    await asyncio.wait({step.task})
    await until(lambda: not engine.host.running)
    assert step.lines == [out("one")]


async def test_a_step_whose_engine_dies_has_told_its_lines(
    bench: Bench, engine: Engine, gates: Path
) -> None:
    step = Watched(bench, shell("echo one; sleep 1000"), gates)
    await step.seen(out("one"))
    await engine.kill()
    assert not (await step.failed()).outcome_known
    assert step.lines == [out("one")]


async def test_bytes_of_all_kinds_come_as_they_do_in_the_result(bench: Bench, gates: Path) -> None:
    odd = r"h\303\251llo \342\234\223 \377 \\ %% \t \001 \033[1m\n\n"
    step = Watched(bench, shell(f"printf '{odd}'; {GATE.format(1)}; printf '{odd}x\\r\\n'"), gates)
    line = "héllo ✓ \ufffd \\ % \t \x01 \x1b[1m"
    await step.seen(out(line), out(""))
    step.open("1")
    await step.task
    assert step.lines == [out(line), out(""), out(line), out(""), out("x")]


async def test_a_line_in_two_writes_is_told_as_one(bench: Bench, gates: Path) -> None:
    text = f"echo one; printf tw; {GATE.format(1)}; echo o; {GATE.format(2)}"
    step = Watched(bench, shell(text), gates)
    await step.seen(out("one"))
    step.open("1")
    await step.seen(out("one"), out("two"))
    step.open("2")
    await step.task
    assert step.lines == [out("one"), out("two")]


async def test_secrets_are_masked_in_lines_too(
    make_bench: MakeBench, engine: Engine, gates: Path
) -> None:
    bench = make_bench(environ={"A": "hush-hush"})
    text = f'echo "é $T."; {GATE.format(1)}; echo "$T" >&2'
    step = Watched(bench, shell(text).secret("T", "env://A"), gates)
    await step.seen(out("é ***."))
    step.open("1")
    await step.task
    assert step.lines == [out("é ***."), err("***")]
    assert "hush" not in str(vars(engine.logs))


@pytest.mark.parametrize("secret", ["pä\u00dfword", "two\nlines of it"])
async def test_a_step_with_a_secret_that_an_engine_would_not_find_tells_its_lines_in_the_end(
    make_bench: MakeBench, engine: Engine, gates: Path, secret: str
) -> None:
    bench = make_bench(environ={"A": secret})
    text = f'echo "a $T."; {GATE.format(1)}; echo "$T"; echo b'
    step = Watched(bench, shell(text).secret("T", "env://A"), gates)
    await engine.running()
    step.open("1")
    await step.task
    assert step.lines == [out("a ***."), out("***"), out("b")]
    assert engine.logs.asked == 0


async def test_of_more_lines_than_are_kept_the_last_ones_are_told(
    bench: Bench, gates: Path
) -> None:
    many = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done"
    text = f"echo first; {GATE.format(1)}; {many}"
    step = Watched(bench, shell(text).limits(output=1000), gates)
    await step.seen(out("first"))
    step.open("1")
    result = await step.task
    numbers = [int(line.split()[-1]) for _, line in step.lines[1:] if line.startswith("line ")]
    assert numbers == sorted(set(numbers)), "none twice, and in order"
    assert step.lines[-1] == out("line 2999")
    assert result.truncated > 0


async def test_an_answer_from_the_cache_tells_the_lines_of_the_run_that_made_it(
    bench: Bench, gates: Path
) -> None:
    spec = shell("echo one; echo two").cacheable()
    steps = [Watched(bench, spec, gates)]
    await steps[0].task
    steps.append(Watched(bench, spec, gates))
    assert (await steps[1].task).cached
    assert [step.lines for step in steps] == [[out("one"), out("two")]] * 2


async def test_a_provided_session_tells_lines_too(
    make_bench: MakeBench, engine: Engine, gates: Path
) -> None:
    port, token = await engine.provided()
    bench = make_bench(provided=ProvidedSession(port, token))
    step = Watched(bench, shell(f"echo one; {GATE.format(1)}; echo two"), gates)
    await step.seen(out("one"))
    step.open("1")
    await step.task
    assert step.lines == [out("one"), out("two")]


async def test_steps_that_run_at_once_tell_their_own_lines(bench: Bench, gates: Path) -> None:
    steps = [
        Watched(bench, shell(f"echo {name} >&2; {GATE.format(1)}; echo {name}"), gates)
        for name in ("a", "a", "b")
    ]
    for step, name in zip(steps, ("a", "a", "b"), strict=True):
        await step.seen(err(name))
    steps[0].open("1")
    for step, name in zip(steps, ("a", "a", "b"), strict=True):
        await step.task
        assert step.lines == [err(name), out(name)]


@pytest.mark.parametrize("dead", ["refused", "mute", "garbage"])
async def test_without_a_stream_lines_are_told_in_the_end_and_the_step_runs_as_ever(
    bench: Bench, engine: Engine, gates: Path, dead: str
) -> None:
    engine.logs.dead = dead
    step = Watched(bench, shell(f"echo one; {GATE.format(1)}; echo two"), gates)
    await until(lambda: engine.logs.asked > 0)
    step.open("1")
    result: RunResult = await step.task
    assert step.lines == [out("one"), out("two")]
    assert result.stdout == "one\ntwo\n"
    assert engine.opened == 1


async def test_a_stream_that_breaks_goes_on_where_it_broke(
    bench: Bench, engine: Engine, gates: Path
) -> None:
    text = f"echo one; {GATE.format(1)}; echo two; {GATE.format(2)}; echo three"
    step = Watched(bench, shell(text), gates)
    await step.seen(out("one"))
    engine.logs.cut()
    step.open("1")
    await step.seen(out("one"), out("two"))
    step.open("2")
    await step.task
    assert step.lines == [out("one"), out("two"), out("three")]
    assert engine.logs.asked > 1


async def test_questions_to_a_session_are_in_no_log(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """What is logged while a step runs goes with its task's lines; httpx tells each request as it would a handler's."""
    with caplog.at_level(logging.INFO):
        await bench.run(shell("echo one"))
        logging.getLogger("httpx").info("HTTP Request: GET https://example.org/ 200")
    assert [one.getMessage() for one in caplog.records if one.name == "httpx"] == [
        "HTTP Request: GET https://example.org/ 200"
    ]
