"""Runs a function of this package as a step of its own: the blocking part of a service.

A step can be bounded and killed with all its processes, which a thread cannot; and it sees only what it needs. One
spec serves a process of this host and a container of an engine: all that is mounted stands at the same path in both,
and the interpreter is called by its name. `__main__` is the other end: the answer comes as JSON on the standard output
with exit code 0, a reason on the error output with one of two others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar, get_type_hints

import msgspec

from switchgear import Artifact, Context, Permanent, Retryable, StepFailed, StepSpec, command
from switchgear_agents import packages, places
from switchgear_agents.refusals import REFUSED, TEMPORARY

P = ParamSpec("P")
T = TypeVar("T")

OUTPUT = 8 * 1024 * 1024
"""Bytes that a program's answer may have."""
NETWORK = (
    "ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    "all_proxy", "http_proxy", "https_proxy", "no_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "SSH_AUTH_SOCK",
    "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INDEX",
    "UV_INDEX_URL", "UV_NATIVE_TLS", "UV_OFFLINE", "UV_SYSTEM_CERTS", "XDG_CONFIG_HOME",
)  # fmt: skip
"""Variables of the agent by which programs with the network reach package indexes and git hosts. Never handed on to
code of the tree that is checked."""
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO")
"""Those of them that name files."""
MAIN = str(Path(__file__).with_name("__main__.py"))
_NO_PROGRAM = (126, 127)
"""Exit codes of a shell that could not start it."""


class Needs(NamedTuple):
    """What a program needs beside its own code."""

    timeout: timedelta
    reads: tuple[str, ...] = ()
    """Files and directories of this host."""
    packages: tuple[str, ...] = ()
    """Distributions that it imports, beside what these services need anyway."""
    tools: tuple[str, ...] = ()
    """Programs of the agent's environment."""
    caches: tuple[str, ...] = ()
    """Kinds of cache that it writes; `uv` is that of uv. With one it stays on this host."""
    network: bool = False
    home: tuple[str, ...] = ()
    """Files of the user's home by which git reaches hosts. With one that exists it stays on this host."""
    outputs: Mapping[str, str] = {}
    """What it leaves in its working directory, by name."""
    host: bool = False
    """Whether it stays on this host in any case."""


async def answer(
    ctx: Context,
    key: str,
    work: Callable[P, T],
    needs: Needs,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run a function of this package as step `key`, in a process or in an engine's container.

    Arguments and result travel as JSON. Raises `Permanent` where the function raises `Refused`, `Retryable` for
    `Temporary`, and `StepFailed` for any other end.
    """
    return (await produce(ctx, key, work, needs, *args, **kwargs))[0]


async def produce(
    ctx: Context,
    key: str,
    work: Callable[P, T],
    needs: Needs,
    *args: P.args,
    **kwargs: P.kwargs,
) -> tuple[T, dict[str, Artifact]]:
    """As `answer`, with the files that it leaves."""
    if kwargs:
        raise TypeError("a program takes its arguments by position")
    spec = program(f"{work.__module__}:{work.__name__}", needs).stdin(
        msgspec.json.encode(args).decode()
    )
    try:
        result = await ctx.run(key, spec)
    except StepFailed as failed:
        if said := _meant(key, failed.exit_code, failed.stderr):
            raise said from failed
        raise
    if said := _meant(key, result.exit_code, result.stderr):
        raise said
    if result.truncated:
        raise Permanent(f"the answer of {key} is larger than {OUTPUT} bytes")
    kind = get_type_hints(work)["return"]
    return msgspec.json.decode(result.stdout, type=kind), result.outputs


def _meant(key: str, exit_code: int | None, stderr: str) -> Permanent | Retryable | None:
    """What a program says by its exit code; None for one that says nothing."""
    if exit_code == TEMPORARY:
        return Retryable(stderr.strip())
    if exit_code == REFUSED:
        return Permanent(stderr.strip())
    if exit_code in _NO_PROGRAM:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return Permanent(f"step {key} needs an image with Python {version}: {stderr.strip()}")
    return None


def program(target: str, needs: Needs) -> StepSpec:
    """The step that runs a function, MODULE:FUNCTION, with what it may see of this host."""
    code = packages.code(*needs.packages)
    # -I: neither the working directory, variables nor anything in a tree can shadow a module.
    spec = (
        command(places.interpreter(), "-I", MAIN, os.pathsep.join(code.roots), target)
        .env(PATH=places.search_path(), **{places.OWN_BIN: places.own_bin()})
        .limits(timeout=needs.timeout, output=OUTPUT)
        # Where it leaves files, a refusal is no success: they would be missed.
        .expect(*((0,) if needs.outputs else (0, REFUSED, TEMPORARY)))
        .network(needs.network)
        # They only read what they check: one that was killed from outside may run again.
        .idempotent()
    )
    shown = (*code.files, *places.tool_files(needs.tools), *places.existing(needs.reads))
    spec = _mounted(spec, shown)
    if needs.network:
        spec = _networked(spec)
    home = places.existing(str(Path.home() / name) for name in needs.home)
    if home:
        spec = _mounted(spec, home).env(HOME=str(Path.home()))
    for kind in needs.caches:
        spec = _cached(spec, kind)
    for name, path in needs.outputs.items():
        spec = spec.output(name, path)
    return spec.on_host(bool(needs.host or needs.caches or home))


def _mounted(spec: StepSpec, paths: tuple[str, ...] | list[str]) -> StepSpec:
    for path in paths:
        spec = spec.mount(path, path)
    return spec


def _networked(spec: StepSpec) -> StepSpec:
    """With how this agent reaches hosts: proxies, certificates, indexes, the keys of its ssh agent."""
    variables = {name: os.environ[name] for name in NETWORK if name in os.environ}
    files = [variables[name] for name in (*CERTIFICATES, "SSH_AUTH_SOCK") if name in variables]
    paths = places.existing([*files, str(places.config_home() / "uv")])
    return _mounted(spec, paths).env(**variables)


def _cached(spec: StepSpec, kind: str) -> StepSpec:
    """With a cache of this host, to be written."""
    path = str(places.uv_cache() if kind == "uv" else places.cache_directory(kind))
    # Caches are mounted one by one: nothing can be linked from one to the other.
    variables = {"UV_CACHE_DIR": path, "UV_LINK_MODE": "copy"} if kind == "uv" else {}
    variables["XDG_CACHE_HOME"] = str(places.cache_home().absolute())
    return spec.mount(path, path, read_only=False).env(**variables)
