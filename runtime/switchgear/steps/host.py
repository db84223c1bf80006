"""What a step without an image sees of the agent's host: the system, read-only, and its program's own files.

Homes, secrets, sockets, other users' files and the agent's own directory are not among it; a spec mounts what it needs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from switchgear.steps.sandbox import Link, Operation, Show, shown

INHERITED = frozenset({"PATH", "HOME", "LANG", "TMPDIR", "TZ", "VIRTUAL_ENV"})
"""Variables that a step inherits, beside LC_*: enough to find programs and write text, and no
credential among them."""

IMAGE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH in a root filesystem."""

_TREES = ("/usr", "/opt", "/nix/store", "/gnu/store")
_TOP = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""Directories of old layouts; links into /usr on new ones."""
_ETC = (
    "alternatives",
    "gitconfig",
    "group",
    "hosts",
    "ld.so.cache",
    "localtime",
    "nsswitch.conf",
    "os-release",
    "passwd",
)
"""Of /etc: what programs need to run and to know names. Each costs the start of every step a mount."""
_ETC_NETWORK = (
    "ca-certificates",
    "crypto-policies",
    "gai.conf",
    "host.conf",
    "pki",
    "resolv.conf",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
)
"""What they need on the network."""


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a step inherits of the agent's own environment."""
    return {
        name: value
        for name, value in environ.items()
        if name in INHERITED or name.startswith("LC_")
    }


def system(places: Iterable[str], *, networked: bool) -> list[Operation]:
    """The host's programs and what they need, read-only, with room at the given places."""
    places = tuple(places)
    operations: list[Operation] = []
    for tree in _TREES:
        if os.path.isdir(tree):  # noqa: PTH112 - text in, text out
            operations += shown(tree, tree, places)
    for name in _TOP:
        if os.path.islink(name):  # noqa: PTH114 - as above
            operations.append(Link(name, os.readlink(name)))  # noqa: PTH115 - as above
        elif os.path.isdir(name):  # noqa: PTH112 - as above
            operations += shown(name, name, places)
    for name in (*_ETC, *_ETC_NETWORK) if networked else _ETC:
        operations += _etc(f"/etc/{name}")
    return operations


def _etc(path: str) -> list[Operation]:
    """What /etc has there. A link may lead to /run, which is not shown: what it names is shown in its place."""
    real = os.path.realpath(path)
    if real != path and real.startswith("/usr/"):
        return [Link(path, real)]
    return [Show(path, real)] if os.path.exists(real) else []  # noqa: PTH110 - text in, text out


def _visible(path: str, operations: Iterable[Operation]) -> bool:
    """Whether the path is of the system, or inside something that is shown from the same path of the host."""
    if any(path.startswith(f"{tree}/") for tree in (*_TREES, *_TOP)):
        return True
    return any(
        isinstance(one, Show)
        and one.path == one.host
        and (path == one.path or path.startswith(f"{one.path}/"))
        for one in operations
    )


def manager_tree(program: str, operations: Iterable[Operation]) -> str:
    """Where the version manager lives whose shim this is: it starts a program that is not shown; empty for others."""
    folder = Path(program).parent
    if folder.name != "shims" or _visible(program, operations):
        return ""
    return str(folder.parent)


def program_files(program: str, operations: Iterable[Operation]) -> list[Operation]:
    """What a program outside of the system needs to be shown: its virtual environment, its Python, or its own file."""
    operations = list(operations)
    wanted = [path for path in _files(program) if not _visible(path, operations)]
    return [Show(path, path) for path in sorted(set(wanted))]


def _files(program: str) -> tuple[str, ...]:
    folder = Path(program).parent
    if (folder.parent / "pyvenv.cfg").is_file():
        return (str(folder.parent), *_base(folder.parent / "pyvenv.cfg"))
    real = os.path.realpath(program)
    return tuple({program, real, *_python(Path(real).parent.parent)})


def _base(config: Path) -> tuple[str, ...]:
    """Of a virtual environment: the Python that it was made from."""
    for line in config.read_text("utf-8", errors="replace").splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "home":
            home = Path(value.strip())
            real = Path(os.path.realpath(home))
            return (*_python(home.parent), *_python(real.parent))
    return ()


def _python(prefix: Path) -> tuple[str, ...]:
    """Programs and libraries of a Python that was installed under this prefix; empty where there is none."""
    if not any(prefix.glob("lib/python3.*/os.py")):
        return ()
    return tuple(
        str(prefix / name) for name in ("bin", "lib", "include") if (prefix / name).is_dir()
    )
