"""Runs the tests of a tree's commit in a copy of its own and reads their report.

The copy is installed, editable, into a virtual environment of this run only, which sees the shared environment's
packages: what tests write or install is gone afterwards. Needs no network; in an image, the interpreter is the
image's, and of the shared environment only packages and scripts are used.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from switchgear_agents.places import OWN_BIN
from switchgear_agents.pytest_runner import junit
from switchgear_agents.pytest_runner.declarations import Declared, declared
from switchgear_agents.pytest_runner.environment import python, uv
from switchgear_agents.refusals import Refused
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


def run_suite(path: str, limit: float, shared: str) -> SuiteReport:
    """Run the tests for at most `limit` seconds; raises `Refused` for something that is no tree.

    `shared`: the environment with what they need.
    """
    with copied(path) as tree:
        wanted = declared(tree)
        own = tree.parent / "venv"
        notes = _install(tree, own, Path(shared), wanted)
        (tree.parent / "tmp").mkdir()
        report = tree.parent / "junit.xml"
        code, output = _pytest(tree, own, wanted, report, limit)
        return _judge(code, output, report, limit, notes)


def _install(tree: Path, own: Path, shared: Path, wanted: Declared) -> list[str]:
    """Make the run's environment and put the tree into it; returns what the reader should know."""
    made = uv("venv", "--no-project", "--offline", "--python", sys.executable, str(own), cwd=tree)
    if made.returncode:
        raise Refused(f"uv cannot make an environment: {made.stderr.strip()}")
    packages = next(shared.glob("lib/python*/site-packages"))
    link = next(own.glob("lib/python*/site-packages")) / "_shared.pth"
    # addsitedir, not the bare path: .pth files of the shared environment count too.
    link.write_text(f"import site; site.addsitedir({str(packages)!r})\n", "utf-8")
    _take_scripts(shared, own)
    source = link.with_name("_source.pth")
    if wanted.project is None:
        source.write_text(f"{tree / 'src'}\n", "utf-8")
        return []
    to = ["--python", python(own), "--no-deps", "--editable", str(tree)]
    here = ["--offline", "--no-build-isolation", "--no-cache"]
    installed = uv("pip", "install", *here, *to, cwd=tree)
    if installed.returncode == 0:
        return []
    source.write_text(f"{tree / 'src'}\n", "utf-8")
    why = " ".join(installed.stderr.split())[-300:]
    return [f"the tree could not be installed and was tested from its path: {why}"]


def _take_scripts(shared: Path, own: Path) -> None:
    """Programs of the shared environment, for this run's interpreter: an image does not have the other one."""
    theirs = f"#!{shared / 'bin' / 'python'}".encode()
    for file in (shared / "bin").iterdir():
        place = own / "bin" / file.name
        if place.exists() or file.is_symlink() or not file.is_file():
            continue
        with file.open("rb") as script:
            first = script.readline(len(theirs) + 16)
            if first.startswith(theirs):
                place.write_bytes(f"#!{python(own)}\n".encode() + script.read())
                place.chmod(0o755)
            else:
                place.symlink_to(file)


def _pytest(
    tree: Path, own: Path, wanted: Declared, report: Path, limit: float
) -> tuple[int | None, str]:
    """Exit code of pytest, None when its time was up, and the end of its output."""
    command = [python(own), "-m", "pytest", *(wanted.arguments or ())]
    command += ["-p", "no:cacheprovider", "--color=no", "--tb=short", f"--junitxml={report}"]
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, most))
    with subprocess.Popen(
        command,
        cwd=tree,
        env=_environment(tree, own),
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


def _environment(tree: Path, own: Path) -> dict[str, str]:
    """The step's clean environment without what is the agent's, and with the run's own places."""
    kept = dict(os.environ)
    tools = kept.pop(OWN_BIN, "")
    paths = [part for part in kept.get("PATH", os.defpath).split(os.pathsep) if part != tools]
    return kept | {
        "PATH": os.pathsep.join((str(own / "bin"), *paths)),
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
