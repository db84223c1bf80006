"""Programs as child processes: logged, restarted, never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from switchgear.server.supervisor import Backoff, Program, Supervisor, ending
from tests.patience import PATIENCE

QUICK = Backoff(first=timedelta(milliseconds=10), longest=timedelta(milliseconds=50))


def alive(pid: int) -> bool:
    """Whether a process exists and is not merely waiting to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not met():
            await asyncio.sleep(0.005)


def python(name: str, code: str) -> Program:
    return Program(name, (sys.executable, "-c", code))


class Watched:
    """A supervisor and what it said."""

    def __init__(self, logs: Path) -> None:
        self.lines: list[tuple[str, str]] = []
        self.supervisor = Supervisor(
            logs, heard=lambda name, line: self.lines.append((name, line)), backoff=QUICK
        )

    def said(self, line: str) -> bool:
        return any(line in text for _, text in self.lines)


@pytest_asyncio.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    made = Watched(tmp_path / "logs")
    yield made
    made.supervisor.hurry()
    await made.supervisor.stop(list(made.supervisor.children), timedelta(seconds=5))


async def test_output_is_heard_line_by_line_and_kept(watched: Watched) -> None:
    watched.supervisor.start(python("a", "import sys; print('one'); print('two', file=sys.stderr)"))
    await until(lambda: watched.supervisor.children["a"].state == "ended")
    assert sorted(watched.lines) == [("a", "one"), ("a", "two")]
    log = watched.supervisor.log_path("a").read_text(encoding="utf-8")
    assert sorted(log.split()) == ["one", "two"]


async def test_a_program_that_meant_to_end_is_not_started_again(watched: Watched) -> None:
    watched.supervisor.start(python("a", "pass"))
    child = watched.supervisor.children["a"]
    await until(lambda: child.state == "ended")
    assert (child.exit_code, child.restarts) == (0, 0)


async def test_a_program_that_cannot_work_is_not_started_again(watched: Watched) -> None:
    watched.supervisor.start(python("a", "raise SystemExit(2)"))
    child = watched.supervisor.children["a"]
    await until(lambda: child.state == "refused")
    assert child.restarts == 0


async def test_a_crashed_program_is_started_again(watched: Watched) -> None:
    watched.supervisor.start(python("a", "print('up', flush=True); raise SystemExit(1)"))
    await until(lambda: watched.supervisor.children["a"].restarts >= 2)
    assert watched.said("a ended with exit code 1; again in 0.01 s")


def test_pauses_grow_to_a_bound() -> None:
    pauses = [Backoff().pause(crashes).total_seconds() for crashes in (1, 2, 3, 7, 100)]
    assert pauses == [0.5, 1, 2, 30, 30]


def test_an_end_is_told_in_words() -> None:
    assert ending(3) == "ended with exit code 3"
    assert ending(-9) == "was ended by SIGKILL"
    assert ending(-99) == "was ended by signal 99"


async def test_stop_asks_first_and_then_kills(watched: Watched) -> None:
    stubborn = (
        # print must not be entered again: the signal may come before the first one has left it
        "import os, signal, time; signal.signal(15, lambda *_: os.write(1, b'asked\\n'));"
        "print('up', flush=True)\nwhile True: time.sleep(60)"
    )
    watched.supervisor.start(python("a", stubborn))
    await until(lambda: watched.said("up"))
    stopping = asyncio.create_task(watched.supervisor.stop(["a"], timedelta(hours=1)))
    await until(lambda: watched.said("asked"))
    child = watched.supervisor.children["a"]
    assert alive(child.pid)
    watched.supervisor.hurry()
    await stopping
    assert (child.state, child.exit_code) == ("ended", -signal.SIGKILL)
    assert not alive(child.pid)


async def test_who_does_not_end_in_time_is_killed(watched: Watched) -> None:
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True)"
    watched.supervisor.start(python("a", f"{stubborn}\nwhile True: time.sleep(60)"))
    await until(lambda: watched.said("up"))
    await watched.supervisor.stop(["a"], timedelta(milliseconds=50))
    child = watched.supervisor.children["a"]
    assert (child.state, child.exit_code) == ("ended", -signal.SIGKILL)
    assert not alive(child.pid)


async def test_a_hurry_waits_for_nobody(watched: Watched) -> None:
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True)"
    watched.supervisor.start(python("a", f"{stubborn}\nwhile True: time.sleep(60)"))
    await until(lambda: watched.said("up"))
    watched.supervisor.hurry()
    async with asyncio.timeout(PATIENCE):
        await watched.supervisor.stop(["a"], timedelta(hours=1))
    assert not alive(watched.supervisor.children["a"].pid)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_what_a_program_started_goes_with_it(watched: Watched) -> None:
    """Also a daemon in a session of its own, as steps are."""
    code = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
        " start_new_session=True)\nprint('child', p.pid, flush=True)\ntime.sleep(600)"
    )
    watched.supervisor.start(python("a", code))
    await until(lambda: watched.said("child "))
    pid = next(int(text.split()[1]) for _, text in watched.lines if text.startswith("child "))
    assert alive(pid)
    await watched.supervisor.stop(["a"], timedelta(seconds=5))
    await until(lambda: not alive(pid))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
async def test_programs_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    code = f"""
import asyncio, os, sys
from pathlib import Path
from switchgear.server.supervisor import Program, Supervisor
async def main():
    heard = lambda name, line: print(line, flush=True)
    supervisor = Supervisor(Path({str(tmp_path)!r}), heard=heard)
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    supervisor.start(Program("a", (sys.executable, "-c", code)))
    await asyncio.sleep(600)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            pid = int(await process.stdout.readline())
        assert alive(pid)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    await until(lambda: not alive(pid))


async def test_a_log_that_grew_too_large_is_put_aside(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("switchgear.server.supervisor.MAX_LOG", 10)
    path = watched.supervisor.log_path("a")
    path.parent.mkdir(parents=True)
    path.write_text("x" * 20, encoding="utf-8")
    watched.supervisor.start(python("a", "print('new')"))
    await until(lambda: watched.supervisor.children["a"].state == "ended")
    assert path.read_text(encoding="utf-8") == "new\n"
    assert path.with_suffix(".log.1").read_text(encoding="utf-8") == "x" * 20
