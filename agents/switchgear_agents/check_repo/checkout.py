"""Finds a commit in a repository, and fetches it alone into a bare one; two programs of `check-repo`.

The source's own tree and git directory are only read. Nothing of it is executed: no hooks, filters or submodules.
"""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from msgspec import Struct

from switchgear_agents.refusals import Refused, Temporary
from switchgear_agents.tree import git

TREE = "tree"
"""What the fetched commit's repository is called, in the working directory."""

_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/@+-]*")
"""Stricter than git: no options, no refspecs, no expressions."""
_SSH = re.compile(r"(?!-)[A-Za-z0-9._-]+@(?!-)[A-Za-z0-9.-]+:(?!-)\S+")
"""The short form of an ssh URL, user@host:path."""
_PASSING = (
    "could not resolve",
    "timed out",
    "connect to",
    "connection",
    "early eof",
    "http 5",
    "error: 5",
    "temporar",
    "too slow",
    "timeout, server",
)
"""What git says, in lower case, when the network or the host failed and not the request."""


class Source(Struct, frozen=True, kw_only=True):
    """A commit of a repository on this host."""

    top: str
    """Root of its work tree, or a bare repository."""
    commit: str
    notes: list[str] = []


def look(source: str, ref: str = "") -> Source:
    """Find what `ref` names, or HEAD where it is empty, at an absolute path. Raises `Refused`."""
    _check_ref(ref)
    local = _local(source)
    if local is None:
        raise Refused(f"{source!r} is no absolute path")
    top = _top(local)
    commit = _resolve(top, ref or "HEAD")
    notes = [] if top == local else [f"{source} lies in the repository {top}, which was checked"]
    if commit == _resolve(top, "HEAD"):
        notes += _changes(top, commit)
    return Source(top=str(top), commit=commit, notes=notes)


def fetch(source: str, wanted: str = "", into: str = TREE) -> str:
    """Make a bare repository with this one commit, without history; `wanted`: HEAD where it is empty.

    Returns the commit. Raises `Refused`, `Temporary`.
    """
    _check_ref(wanted)
    _local(source)
    home = Path(into).absolute()
    home.mkdir()
    _run("init", "--quiet", "--bare", "--template=", "--initial-branch=checked", cwd=home)
    _run("fetch", "--quiet", "--depth=1", "--no-tags", "--", source, wanted or "HEAD", cwd=home)
    commit = _run("rev-parse", "--verify", "FETCH_HEAD^{commit}", cwd=home).strip()
    _run("update-ref", "HEAD", commit, cwd=home)
    (home / "FETCH_HEAD").unlink()
    return commit


def _check_ref(ref: str) -> None:
    if ref and (not _REF.fullmatch(ref) or ".." in ref):
        raise Refused(f"{ref!r} is no branch, tag or commit")


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


def _run(*args: str, cwd: Path) -> str:
    ran = git(*args, cwd=cwd)
    if ran.returncode == 0:
        return ran.stdout
    text = ran.stderr.strip()[-1000:]
    if any(sign in text.lower() for sign in _PASSING):
        raise Temporary(f"git {args[0]} failed: {text}")
    raise Refused(f"git {args[0]} failed: {text}")


def _changes(top: Path, commit: str) -> list[str]:
    """A note on what the work tree holds beyond the commit.

    Compared through a git directory of our own that borrows the objects: the source's configuration could name
    programs to run.
    """
    objects = git("rev-parse", "--path-format=absolute", "--git-path", "objects", cwd=top)
    with TemporaryDirectory(prefix="sg-") as folder:
        own = Path(folder) / "own.git"
        git("init", "--quiet", "--bare", "--template=", str(own))
        borrowed = own / "objects" / "info" / "alternates"
        borrowed.parent.mkdir(parents=True, exist_ok=True)
        borrowed.write_text(objects.stdout, "utf-8")
        at = (f"--git-dir={own}", f"--work-tree={top}")
        git(*at, "update-ref", "HEAD", commit, cwd=top)
        git(*at, "read-tree", commit, cwd=top)
        status = git(*at, "status", "--porcelain", "-z", cwd=top)
    changed = [entry for entry in status.stdout.split("\0") if entry]
    if status.returncode or not changed:
        return []
    return [
        f"{len(changed)} files differ from commit {commit[:12]} or are new: they were not checked"
    ]
