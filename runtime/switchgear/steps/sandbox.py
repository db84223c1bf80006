"""A sandbox as a value, and the bubblewrap arguments that make it.

Below the process executor, which decides what is shown; nothing here starts anything. The order of the operations is
theirs: what comes later covers what came before.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PROGRAM = "bwrap"
PACKAGE = "bubblewrap"

SCRATCH = "/work"
"""Where a step starts that names no working directory."""
TEMPORARY = "/tmp"  # noqa: S108 - inside the sandbox, where it is private

_KERNEL = ("/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs")
"""Settings of the whole host. bubblewrap covers them only where it finds them writable, and looks too early."""


class Show(NamedTuple):
    """Something of the host at a path inside."""

    path: str
    host: str
    writable: bool = False


class Link(NamedTuple):
    """A symbolic link inside."""

    path: str
    target: str


class Folder(NamedTuple):
    """An empty directory inside, in which other things are shown."""

    path: str


Operation = Show | Link | Folder


class Sandbox(NamedTuple):
    """What a step sees, and as whom it runs."""

    operations: Sequence[Operation]
    """The system first, then what a step may write and what its spec mounts."""
    environment: Mapping[str, str]
    directory: str
    networked: bool = False
    root: bool = False
    """Whether it is user 0 inside; without capabilities all the same."""
    entering: Sequence[str] = ()
    """What takes it into a network that others have too; empty: it has one of its own, or the host's."""


def arguments(sandbox: Sandbox, status_fd: int) -> list[str]:
    """The arguments of bwrap, without the command."""
    options = ["--unshare-all", "--unshare-user", "--die-with-parent", "--new-session"]
    options += ["--clearenv", "--cap-drop", "ALL", "--hostname", "step"]
    options += ["--json-status-fd", str(status_fd)]
    if sandbox.networked or sandbox.entering:
        options.append("--share-net")
    if sandbox.root:
        options += ["--uid", "0", "--gid", "0"]
    options += ["--proc", "/proc", *_guarded_proc(), "--dev", "/dev"]
    for one in sandbox.operations:
        options += _options(one)
    options += ["--remount-ro", "/", "--chdir", sandbox.directory]
    for name, value in sandbox.environment.items():
        options += ["--setenv", name, value]
    return options


def _guarded_proc() -> list[str]:
    """What of /proc reaches beyond the sandbox, read-only: the kernel asks for user 0 there, not for capabilities."""
    return [word for one in _KERNEL if os.path.exists(one) for word in ("--ro-bind", one, one)]  # noqa: PTH110 - text


def _options(one: Operation) -> list[str]:
    if isinstance(one, Link):
        return ["--symlink", one.target, one.path]
    if isinstance(one, Folder):
        return ["--dir", one.path]
    return ["--bind" if one.writable else "--ro-bind", one.host, one.path]


def shown(host: str, path: str, places: Iterable[str]) -> list[Operation]:
    """A host's directory, read-only, with room for things at these places below it.

    A place that the directory lacks, or where it has a link, cannot be made in something read-only: its parent is
    shown entry by entry, in an empty directory that has room for the place.
    """
    missing = [
        one
        for one in places
        if one.startswith(f"{path.rstrip('/')}/") and not _has(host + _rest(one, path))
    ]
    if not missing and path != "/":
        return [Show(path, host)]
    operations: list[Operation] = [] if path == "/" else [Folder(path)]
    with os.scandir(host) as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            inside = f"{path.rstrip('/')}/{entry.name}"
            if inside in _OWN or inside in missing:
                continue
            if entry.is_symlink():
                operations.append(Link(inside, str(Path(entry.path).readlink())))
            elif entry.is_dir():
                operations += shown(entry.path, inside, missing)
            elif entry.is_file():
                operations.append(Show(inside, entry.path))
    return operations


_OWN = frozenset({"/proc", "/dev", "/sys", "/run", TEMPORARY})
"""Top directories of a root filesystem that a sandbox makes for itself, or leaves out."""


def _has(path: str) -> bool:
    return os.path.lexists(path) and not os.path.islink(path)  # noqa: PTH114 - text in, text out


def _rest(place: str, path: str) -> str:
    return place[len(path.rstrip("/")) :]


class Outside(Exception):
    """A path inside that stands for nothing the step may write; the text says why."""


def host_path(operations: Iterable[Operation], path: str) -> Path:
    """Where the host finds this absolute path inside, followed without links. Raises Outside."""
    holding = [
        one
        for one in operations
        if isinstance(one, Show) and (path == one.path or path.startswith(f"{one.path}/"))
    ]
    # Of two at the same depth the later covers the earlier.
    found = max(reversed(holding), key=lambda one: len(one.path), default=None)
    if found is None or not found.writable:
        raise Outside(f"{path} is no place that the step may write")
    place = Path(found.host)
    for part in Path(path).relative_to(found.path).parts:
        # The step may have left a link to anywhere on the host.
        if stat.S_ISLNK(_mode(place)) and str(place) != found.host:
            raise Outside(f"{path} leads through a link")
        place /= part
    return place


def _mode(place: Path) -> int:
    try:
        return place.lstat().st_mode
    except OSError:
        return 0
