"""Reads git trees, and runs git so that nothing of the tree is executed.

A tree is a work tree on this host, or a bare repository with the one commit that is checked: the form in which trees
travel, whose files are checked out again where they are needed.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from switchgear_agents.places import tool
from switchgear_agents.refusals import Refused

_STALL = 60
"""Seconds for which a host may be silent."""
_QUIET = {
    # No prompt by git or ssh, no download of large files, no lock taken only to speed up reading.
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_SSH_COMMAND": f"ssh -oBatchMode=yes -oConnectTimeout={_STALL} "
    f"-oServerAliveInterval={_STALL // 4} -oServerAliveCountMax=4",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_PROTOCOL_FROM_USER": "0",
    "GIT_ALLOW_PROTOCOL": "file:https:ssh",
    "LC_ALL": "C.UTF-8",
}
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "protocol.version=2",
    "gc.auto=0",
    "advice.detachedHead=false",
    "http.lowSpeedLimit=1",
    f"http.lowSpeedTime={_STALL}",
)
MAX_FILE = 1024 * 1024
"""Bytes of the largest file that is read: larger ones are data, or made by programs."""


def git(*args: str, cwd: str | Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run git without hooks, prompts and monitors; the caller looks at the exit code."""
    return subprocess.run(
        [tool("git"), *(part for setting in _SETTINGS for part in ("-c", setting)), *args],
        cwd=cwd,
        env={**os.environ, **_QUIET},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=False,
    )


def tracked(path: str) -> list[str]:
    """Tracked regular files of the work tree, relative: no links, no submodules. Raises `Refused`."""
    _need_directory(path)
    listed = git("ls-files", "-z", "--stage", "--cached", cwd=path)
    if listed.returncode:
        raise Refused(f"{path} cannot be read as a git tree: {listed.stderr.strip()}")
    entries = (entry.partition("\t") for entry in listed.stdout.split("\0") if entry)
    return [name for mode, _, name in entries if mode.startswith("100")]


def readable(path: str, names: Iterable[str]) -> tuple[list[str], int]:
    """Those of the files that are text and at most `MAX_FILE` bytes, and how many are not."""
    kept: list[str] = []
    skipped = 0
    for name in names:
        if _is_text(Path(path) / name):
            kept.append(name)
        else:
            skipped += 1
    return kept, skipped


@contextmanager
def opened(path: str) -> Generator[str]:
    """A work tree as it is; of a bare repository a clone, gone at the end. Raises `Refused`."""
    _need_directory(path)
    if git("rev-parse", "--is-bare-repository", cwd=path).stdout.strip() != "true":
        yield path
        return
    with copied(path) as copy:
        yield str(copy)


@contextmanager
def copied(path: str) -> Generator[Path]:
    """A clone of the tree's commit that may be written, gone at the end. Raises `Refused`."""
    _need_directory(path)
    with TemporaryDirectory(prefix="sg-", ignore_cleanup_errors=True) as directory:
        copy = Path(directory).resolve() / "tree"
        cloned = git("clone", "--quiet", "--template=", "--", path, str(copy), cwd=directory)
        if cloned.returncode:
            raise Refused(f"{path} cannot be copied: {cloned.stderr.strip()}")
        yield copy


def with_suffix(names: Sequence[str], *suffixes: str) -> list[str]:
    """The names that end so."""
    return [name for name in names if name.endswith(suffixes)]


def _need_directory(path: str) -> None:
    if not Path(path).is_absolute() or not Path(path).is_dir():
        raise Refused(f"{path} is not an absolute path of a directory on this agent's host")


def _is_text(file: Path) -> bool:
    try:
        # Not followed: the index says file, but a changed tree may hold a link to elsewhere.
        state = file.lstat()
        if not stat.S_ISREG(state.st_mode) or state.st_size > MAX_FILE:
            return False
        with file.open("rb") as content:
            return b"\0" not in content.read(8192)
    except OSError:
        return False
