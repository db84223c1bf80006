"""Makes a checkout of one commit in the user's cache; runs in a process of `check-repo`.

The source's own tree and git directory are only read. Nothing of it is executed: no hooks, filters
or submodules.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import urlsplit

from msgspec import Struct

from switchgear_agents.programs import Refused, Temporary, cache_directory
from switchgear_agents.tree import git

_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/@+-]*")
"""Stricter than git: no options, no refspecs, no expressions."""
_SSH = re.compile(r"(?!-)[A-Za-z0-9._-]+@(?!-)[A-Za-z0-9.-]+:(?!-)\S+")
"""The short form of an ssh URL, user@host:path."""
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PASSING = (
    "could not resolve",
    "timed out",
    "connect to",
    "connection",
    "early eof",
    "http 5",
    "error: 5",
    "temporar",
)
"""What git says, in lower case, when the network or the host failed and not the request."""
_KEEP = 24 * 3600
"""Seconds that a checkout outlives its last use."""


class Checkout(Struct, frozen=True, kw_only=True):
    """A commit's files on this host."""

    path: str
    commit: str
    source: str
    notes: list[str] = []


def check_out(source: str, ref: str = "") -> Checkout:
    """Check out what `ref` names, or HEAD where it is empty. Raises `Refused`, `Temporary`."""
    if ref and (not _REF.fullmatch(ref) or ".." in ref):
        raise Refused(f"{ref!r} is no branch, tag or commit")
    _forget_old()
    local = _local(source)
    if local is None:
        path, commit = _fetch(source, ref or "HEAD")
        return Checkout(path=path, commit=commit, source=source)
    top = _top(local)
    wanted = _resolve(top, ref or "HEAD")
    path, commit = _fetch(str(top), wanted)
    notes = [] if top == local else [f"{source} lies in the repository {top}, which was checked"]
    if wanted == _resolve(top, "HEAD"):
        notes += _changes(Path(path), top, commit)
    return Checkout(path=path, commit=commit, source=source, notes=notes)


def _local(source: str) -> Path | None:
    """The path that the source names, or None for a URL to fetch from; `Refused` for neither."""
    if Path(source).is_absolute():
        return Path(source).resolve()
    try:
        url = urlsplit(source)
    except ValueError:
        raise Refused(f"{source!r} is not a URL that can be read") from None
    if url.scheme in {"https", "ssh"} and url.hostname and not url.hostname.startswith("-"):
        if url.password is not None or (url.scheme == "https" and url.username is not None):
            raise Refused("the URL holds a credential: give it to git's credential helper instead")
        return None
    if _SSH.fullmatch(source):
        return None
    raise Refused(f"{source!r} is neither an absolute path nor an https:// or ssh URL")


def _top(path: Path) -> Path:
    """Root of the work tree that the path is in; the path itself for a bare repository."""
    if not path.is_dir():
        raise Refused(f"{path} is no directory on this agent's host")
    found = git("rev-parse", "--show-toplevel", cwd=path)
    if found.returncode == 0:
        return Path(found.stdout.rstrip("\n"))
    if git("rev-parse", "--git-dir", cwd=path).returncode == 0:
        return path
    raise Refused(f"{path} is no git repository: {found.stderr.strip()}")


def _resolve(top: Path, ref: str) -> str:
    found = git("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}", cwd=top)
    if found.returncode == 0:
        return found.stdout.strip()
    if ref == "HEAD":
        raise Refused(f"{top} has no commit yet: commit what is to be checked")
    raise Refused(f"{top} has no branch, tag or commit {ref}")


def _fetch(source: str, wanted: str) -> tuple[str, str]:
    """Path and commit of a checkout without history; one that is there already is used again."""
    root = cache_directory("checkouts")
    prefix = hashlib.sha256(source.encode()).hexdigest()[:12]
    if _COMMIT.fullmatch(wanted) and _reusable(root / f"{prefix}-{wanted[:16]}", wanted):
        return str(root / f"{prefix}-{wanted[:16]}"), wanted
    made = Path(mkdtemp(prefix="new-", dir=root))
    try:
        _run("init", "--quiet", "--template=", cwd=made)
        _run("fetch", "--quiet", "--depth=1", "--no-tags", "--", source, wanted, cwd=made)
        commit = _run("rev-parse", "--verify", "FETCH_HEAD^{commit}", cwd=made).strip()
        _run("checkout", "--quiet", "--detach", commit, cwd=made)
        home = root / f"{prefix}-{commit[:16]}"
        _place(made, home, commit)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return str(home), commit


def _place(made: Path, home: Path, commit: str) -> None:
    """Give the checkout its name at once and complete, unless somebody was faster."""
    if _reusable(home, commit):
        return
    shutil.rmtree(home, ignore_errors=True)
    try:
        made.rename(home)
    except OSError:
        if not _reusable(home, commit):
            raise


def _reusable(home: Path, commit: str) -> bool:
    """Whether the checkout is there and nobody changed it; marks it as used."""
    if not home.is_dir():
        return False
    state = git("rev-parse", "HEAD", cwd=home), git("status", "--porcelain", cwd=home)
    if state[0].stdout.strip() == commit and not state[1].stdout:
        os.utime(home)
        return True
    return False


def _run(*args: str, cwd: Path) -> str:
    ran = git(*args, cwd=cwd)
    if ran.returncode == 0:
        return ran.stdout
    text = ran.stderr.strip()[-1000:]
    if any(sign in text.lower() for sign in _PASSING):
        raise Temporary(f"git {args[0]} failed: {text}")
    raise Refused(f"git {args[0]} failed: {text}")


def _changes(home: Path, top: Path, commit: str) -> list[str]:
    """A note on what the work tree holds beyond the commit.

    Compared through the checkout's own git directory: the source's configuration could name
    programs to run.
    """
    status = git(
        f"--git-dir={home / '.git'}", f"--work-tree={top}", "status", "--porcelain", "-z", cwd=top
    )
    changed = [entry for entry in status.stdout.split("\0") if entry]
    if status.returncode or not changed:
        return []
    return [
        f"{len(changed)} files differ from commit {commit[:12]} or are new: they were not checked"
    ]


def _forget_old() -> None:
    oldest = time.time() - _KEEP  # noqa: TID251 - compared with times of files, which are wall times
    for home in cache_directory("checkouts").iterdir():
        if home.stat().st_mtime < oldest:
            shutil.rmtree(home, ignore_errors=True)
