"""Builds the environment with a tree's test dependencies, once for each digest of them.

The environment holds dependencies only, of the tree and of its build, and lies in the user's cache; the tree itself
comes on top in each run (`suite`), without the network.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec

from switchgear_agents.places import cache_directory, tool
from switchgear_agents.pytest_runner import backend
from switchgear_agents.pytest_runner.declarations import Declared, declared, has_tests
from switchgear_agents.refusals import Refused, Temporary
from switchgear_agents.tree import copied, tracked

_READY = "switchgear.json"
_OTHERS = ("VIRTUAL_ENV", "PYTHONPATH")
"""Variables that would lead uv to another environment."""
_KEPT = 8
"""Environments kept: the ones used last."""
_NETWORK = ("error sending request", "failed to fetch", "timed out", "dns error", "connection")
"""What uv says, in lower case, when the network failed and not the request."""


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual environment with a tree's test dependencies."""

    path: str
    """Empty: the tree has no tests, so none was made."""
    origin: str
    """What it was made from, such as `extra dev, cached`."""
    notes: list[str] = []


def prepare(tree: Path, wanted: Declared) -> Environment:
    """The environment for the tree, built when there is none yet. Raises `Refused`, `Temporary`.

    Building may run the tree's build backend, which may write into the tree: give a copy.
    """
    home = cache_directory("environments") / wanted.digest[:24]
    with using(home):
        made = _made(home)
    if made is None:
        with _locked(home, fcntl.LOCK_EX):
            made = _made(home)
            if made is None:
                made = _build(tree, wanted, home)
                (home / _READY).write_bytes(msgspec.json.encode(made))
                _forget_oldest(home)
                return made
    return msgspec.structs.replace(made, origin=f"{made.origin}, cached")


def using(home: Path) -> AbstractContextManager[None]:
    """While this lasts, nobody removes or rebuilds the environment. Waits for who is doing that."""
    return _locked(home, fcntl.LOCK_SH)


def usable(home: Path) -> bool:
    """Whether the environment is there; then it counts as used now."""
    return _made(home) is not None


def python(environment: str | Path) -> str:
    """The interpreter of an environment."""
    return str(Path(environment) / "bin" / "python")


def uv(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run uv; the caller looks at the exit code."""
    return subprocess.run(
        [tool("uv"), "--quiet", "--no-progress", *args],
        cwd=cwd,
        env={k: v for k, v in os.environ.items() if k not in _OTHERS},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def _build(tree: Path, wanted: Declared, home: Path) -> Environment:
    shutil.rmtree(home, ignore_errors=True)
    created = uv("venv", "--no-project", "--python", sys.executable, str(home), cwd=home.parent)
    if created.returncode:
        raise Refused(f"uv cannot make an environment: {created.stderr.strip()}")
    notes: list[str] = []
    if not wanted.origin:
        notes.append("the tree declares no test dependencies: it gets pytest alone")
    install = ["pip", "install", "--python", python(home), "--compile-bytecode"]
    # In two calls, and pytest second: where the tree pins a pytest, its choice stands.
    for requirements in (_requirements(wanted), ["pytest"]):
        if not requirements:
            continue
        constraints = [f"--constraints={name}" for name in wanted.constraints]
        ran = uv(*install, *requirements, *constraints, cwd=tree)
        if ran.returncode:
            raise _failure(ran.stderr)
    if wanted.backend is not None:
        # Where one of these fails, the suite tests the project from its path, and says so.
        uv(*install, *wanted.backend.requires, cwd=tree)
        if more := backend.asked(wanted.backend, python(home), tree):
            uv(*install, *more, cwd=tree)
    return Environment(path=str(home), origin=wanted.origin or "pytest alone", notes=notes)


def _requirements(wanted: Declared) -> list[str]:
    """Arguments of `uv pip install` for the dependencies, without the tree itself."""
    found = [part for name in wanted.lists for part in ("--requirements", name)]
    if wanted.project is not None:
        found += ["--requirements", wanted.project]
        found += [f"--extra={extra}" for extra in wanted.extras]
    return found + [f"--group={group}" for group in wanted.groups]


def _failure(stderr: str) -> Exception:
    text = stderr.strip()[-1500:]
    if any(sign in text.lower() for sign in _NETWORK):
        return Temporary(f"the test dependencies could not be fetched: {text}")
    return Refused(f"the test dependencies cannot be installed: {text}")


def _made(home: Path) -> Environment | None:
    """The environment there, if it was finished and can still be used."""
    try:
        made = msgspec.json.decode((home / _READY).read_bytes(), type=Environment)
    except (OSError, msgspec.MsgspecError):
        return None
    if not os.access(python(home), os.X_OK):
        return None
    os.utime(home / _READY)
    return made


@contextmanager
def _locked(home: Path, kind: int) -> Generator[None]:
    """Hold the environment's lock, shared or alone; it ends with its process at the latest."""
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, kind)
        yield


def _forget_oldest(kept: Path) -> None:
    """Remove all but the environments used last, and nothing that somebody is using now."""
    ready = sorted(kept.parent.glob(f"*/{_READY}"), key=os.path.getmtime, reverse=True)
    for stamp in ready[_KEPT:]:
        if stamp.parent != kept:
            with stamp.parent.with_suffix(".lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                shutil.rmtree(stamp.parent, ignore_errors=True)


def environment_of(path: str) -> Environment:
    """The environment for a tree's commit, with an empty `path` when it has no tests."""
    with copied(path) as tree:
        wanted = declared(tree)
        if not has_tests(tree, tracked(str(tree)), wanted):
            return Environment(path="", origin="none")
        return prepare(tree, wanted)
