"""Runs the tests of a tree's commit in a copy of its own and reads their report.

The copy is installed, editable, into a virtual environment of this run only, which sees the shared
environment's packages: what tests write or install is gone afterwards.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from switchgear_agents.programs import NETWORK
from switchgear_agents.pytest_runner import junit
from switchgear_agents.pytest_runner.declarations import Declared, declared
from switchgear_agents.pytest_runner.environment import Environment, prepare, python, using, uv
from switchgear_agents.repository import SuiteReport
from switchgear_agents.tree import copied

MEMORY = 8 * 1024**3
"""Bytes of address space for each process of the tests; runtimes reserve far more than they use."""
_STOP = 10.0
"""Seconds that pytest gets to write its report after the time limit."""
_CHUNK, _CHUNKS = 4096, 16
"""Size and number of the pieces of pytest's output that are kept."""
_OUTPUT = 1500
"""Characters of pytest's output that a note repeats."""
_NO_TESTS = 5
"""Exit code of pytest that collected nothing."""


def run_suite(path: str, limit: float) -> SuiteReport:
    """Run the tests for at most `limit` seconds; raises `Refused` for something that is no tree."""
    with copied(path) as tree:
        wanted = declared(tree)
        shared = prepare(tree, wanted)
        with using(Path(shared.path)):
            own = tree.parent / "venv"
            notes = _install(tree, own, shared, wanted)
            (tree.parent / "tmp").mkdir()
            report = tree.parent / "junit.xml"
            code, output = _pytest(tree, own, shared, wanted, report, limit)
        return _judge(code, output, report, limit, notes)


def _install(tree: Path, own: Path, shared: Environment, wanted: Declared) -> list[str]:
    """Make the run's environment and put the tree into it; returns what the reader should know."""
    uv("venv", "--no-project", "--python", python(shared.path), str(own), cwd=tree)
    packages = next(Path(shared.path).glob("lib/python*/site-packages"))
    link = next(own.glob("lib/python*/site-packages")) / "_shared.pth"
    # addsitedir, not the bare path: .pth files of the shared environment count too.
    link.write_text(f"import site; site.addsitedir({str(packages)!r})\n", "utf-8")
    source = link.with_name("_source.pth")
    if wanted.project is None:
        source.write_text(f"{tree / 'src'}\n", "utf-8")
        return []
    to = ["--python", python(own), "--no-deps", "--editable", str(tree)]
    installed = uv("pip", "install", *to, cwd=tree)
    if installed.returncode == 0:
        return []
    source.write_text(f"{tree / 'src'}\n", "utf-8")
    why = " ".join(installed.stderr.split())[-300:]
    return [f"the tree could not be installed and was tested from its path: {why}"]


def _pytest(
    tree: Path, own: Path, shared: Environment, wanted: Declared, report: Path, limit: float
) -> tuple[int | None, str]:
    """Exit code of pytest, None when its time was up, and the end of its output."""
    command = [python(own), "-m", "pytest", *(wanted.arguments or ())]
    command += ["-p", "no:cacheprovider", "--color=no", "--tb=short", f"--junitxml={report}"]
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, most))
    with subprocess.Popen(
        command,
        cwd=tree,
        env=_environment(tree, own, shared),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
    ) as pytest:
        kept: deque[bytes] = deque(maxlen=_CHUNKS)
        # A daemon: something that the tests left running may hold the pipe for ever.
        reader = threading.Thread(target=_drain, args=(pytest, kept), daemon=True)
        reader.start()
        code = _wait(pytest, limit)
        reader.join(1.0)
        return code, b"".join(kept).decode(errors="replace")


def _environment(tree: Path, own: Path, shared: Environment) -> dict[str, str]:
    """The step's clean environment without what was added for uv, and with the run's own places."""
    kept = {name: value for name, value in os.environ.items() if name not in NETWORK}
    paths = (str(own / "bin"), str(Path(shared.path) / "bin"), kept.get("PATH", os.defpath))
    return kept | {
        "PATH": os.pathsep.join(paths),
        "VIRTUAL_ENV": str(own),
        "TMPDIR": str(tree.parent / "tmp"),
    }


def _drain(process: subprocess.Popen[bytes], kept: deque[bytes]) -> None:
    with suppress(OSError, ValueError):
        while process.stdout is not None and (data := process.stdout.read(_CHUNK)):
            kept.append(data)


def _wait(process: subprocess.Popen[bytes], limit: float) -> int | None:
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        # As Ctrl-C: pytest still reports what has run.
        process.send_signal(signal.SIGINT)
    try:
        process.wait(_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return None


def _judge(
    code: int | None, output: str, report: Path, limit: float, notes: list[str]
) -> SuiteReport:
    counted = junit.read(report)
    end = output.strip()[-_OUTPUT:]
    if code is None:
        return replace(
            counted, outcome="timed out", notes=[*notes, f"stopped after {limit:g} s", end]
        )
    if code == 0:
        return replace(counted, outcome="passed", notes=notes)
    if code == _NO_TESTS:
        return replace(counted, outcome="no tests", notes=notes)
    if code == 1 or counted.errors:
        return replace(counted, outcome="failed", notes=notes)
    return replace(counted, outcome="broken", notes=[*notes, f"pytest ended with {code}", end])
