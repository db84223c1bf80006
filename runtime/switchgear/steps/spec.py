"""What to run, as a frozen value: commands, their surroundings, their limits; built by chained calls.

    command("ruff", "check", ".").workdir("/src").expect(0, 1).limits(timeout=timedelta(minutes=2))
    container("python:3.12-slim").mount("/src", git(url, ref)).workdir("/src").exec("make", "test")

Fields are named apart from the methods that set them. Equal specs have equal digests; a spec is JSON and back.
Above: whoever builds steps. Below: `sources`, `images`. Executors read it, and nothing else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from datetime import timedelta
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from switchgear.contract.artifact import Artifact
from switchgear.errors import UsageError
from switchgear.steps import images
from switchgear.steps.sources import NAME, Cache, Git, Local, Mount, Secret, Sharing

DEFAULT_OUTPUT = 256 * 1024
"""Bytes kept of each output stream: as much as the ledger stores without a blob."""

_VARIABLE = re.compile(r"[^=\0]+")
_REF = re.compile(r"env://[^=\0/]+|file:///[^\0]+")
_EXIT_CODES = range(256)
_PORTS = range(1, 1 << 16)
_START = 30.0
"""Seconds that a service has to start where its spec names no limit."""
_SERVICE = re.compile(r"[a-z][a-z0-9-]{0,62}")

_Item = TypeVar("_Item", Cache, Mount, Secret)


class Service(Struct, frozen=True, omit_defaults=True):
    """Something that runs beside the step, reached under its name; ends with it."""

    name: str
    spec: StepSpec
    ports: tuple[int, ...] = ()
    """TCP ports, ascending: the step begins when it listens on each. Empty: nobody waits for it."""
    start_limit: timedelta | None = None
    """How long it may take from its start until it listens; None: 30 s."""

    def __post_init__(self) -> None:
        # Also of a spec that came from outside: the name becomes part of paths.
        if not _SERVICE.fullmatch(self.name):
            raise ValueError(f"{self.name!r} cannot name a service")
        spec = self.spec
        if spec.services or spec.declared_outputs or spec.input is not None or spec.time_limit:
            what = "services, an output, an input or a timeout of its own"
            raise ValueError(f"the service {self.name} has {what}")
        if any(port not in _PORTS for port in self.ports) or self.start_seconds <= 0:
            raise ValueError(f"the service {self.name} has no usable ports or start limit")

    @property
    def start_seconds(self) -> float:
        """How long it may take until it listens."""
        return _START if self.start_limit is None else self.start_limit.total_seconds()


class StepSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Commands and how to run them; hashable, serialisable, equal by content."""

    commands: tuple[tuple[str, ...], ...] = ()
    """Programs and arguments, run in this order, never seen by a shell. The first unexpected exit ends the step."""
    image: str | None = None
    """Registry reference, `oci:PATH` or `rootfs:PATH`; None: the programs of the agent's host."""
    directory: str | None = None
    """Working directory; None: an empty one of the step's own, for an image the image's."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables on top of the clean environment, sorted by name."""
    secrets: tuple[Secret, ...] = ()
    """Variables whose text is looked up when the step starts, sorted by name."""
    mounts: tuple[Mount, ...] = ()
    """Sorted by path, one for each."""
    caches: tuple[Cache, ...] = ()
    """Sorted by path, one for each."""
    services: tuple[Service, ...] = ()
    """Sorted by name."""
    declared_outputs: tuple[tuple[str, str], ...] = ()
    """Name and path inside of each output, sorted by name."""
    networked: bool = False
    """Whether the step may use the network."""
    exit_codes: tuple[int, ...] = (0,)
    """Exit codes that count as success."""
    time_limit: timedelta | None = None
    """Longest duration of all commands together; None: the attempt's own limit holds."""
    memory_limit: int | None = None
    """Bytes; None: unlimited. The result says whether they hold for each process or for the whole step."""
    cpu_limit: timedelta | None = None
    """Processor time of each process; None: unlimited."""
    file_limit: int | None = None
    """Bytes of the largest file that may be written; None: unlimited."""
    open_limit: int | None = None
    """Files that each process may have open; None: as many as the agent itself."""
    output_limit: int = DEFAULT_OUTPUT
    """Bytes kept of each output stream: the last ones."""
    input: str | None = None
    """Text for the standard input of the last command; None: it is empty."""
    repeatable: bool = False
    """Whether it may be run again when nobody knows whether it ran."""
    reusable: bool = False
    """Whether an engine may answer from its cache instead of running it."""
    host_only: bool = False
    """Whether it runs as a process of the agent's host although an engine runs other steps without an image."""

    def __post_init__(self) -> None:
        for name, path in self.declared_outputs:  # also those of a spec that came from outside
            if not NAME.fullmatch(name) or not path or ".." in path.split("/"):
                raise ValueError(f"{name!r} at {path!r} is no output")

    @property
    def specs(self) -> tuple[StepSpec, ...]:
        """Its own, and those of its services."""
        return (self, *(one.spec for one in self.services))

    @property
    def needs_host(self) -> bool:
        """Whether it must be a process: it or a service says so, or would write to this host, an engine to a copy."""
        return any(one.image is None and (one.host_only or _writes(one)) for one in self.specs)

    def exec(self, *args: str | os.PathLike[str]) -> StepSpec:
        """Then run this program with arguments as they are, without a shell."""
        if not args or not os.fspath(args[0]):
            raise UsageError("a command needs a program", fix='name it first: .exec("make", "all")')
        added = tuple(_text("an argument", os.fspath(arg)) for arg in args)
        return replace(self, commands=(*self.commands, added))

    def workdir(self, path: str | os.PathLike[str]) -> StepSpec:
        """Run in this directory. It must exist when the step starts; on the agent's host it may be written."""
        return replace(self, directory=_text("the working directory", os.fspath(path)))

    def env(self, **variables: str) -> StepSpec:
        """Add environment variables; a later value of a name replaces an earlier one."""
        for name, value in variables.items():
            _text(f"the variable {name}", value)
            _variable(name)
        return replace(
            self, environment=tuple(sorted({**dict(self.environment), **variables}.items()))
        )

    def secret(self, name: str, ref: str) -> StepSpec:
        """Add a variable whose text is looked up when the step starts: `env://NAME` or `file:///path`."""
        _variable(name)
        if not _REF.fullmatch(ref):
            raise UsageError(
                f"the secret {name} is not given by reference",
                why="its text would stand in the ledger",
                fix="write env://NAME or file:///path",
            )
        return replace(self, secrets=_placed(self.secrets, Secret(name, ref)))

    def mount(
        self,
        path: str | os.PathLike[str],
        source: str | os.PathLike[str] | Git | Artifact,
        *,
        read_only: bool = True,
    ) -> StepSpec:
        """Show a local file or directory, a git commit or an artifact at this path inside."""
        if isinstance(source, str | os.PathLike):
            local = _text("a mount's source", os.fspath(source))
            source_: Local | Git | Artifact = Local(os.path.abspath(local))  # noqa: PTH100 - keeps links
        else:
            source_ = source
        mounted = Mount(_absolute("a mount", path), source_, read_only)
        return replace(self, mounts=_placed(self.mounts, mounted))

    def cache(
        self, path: str | os.PathLike[str], name: str, *, sharing: Sharing = "shared"
    ) -> StepSpec:
        """Keep a directory between steps that name the same cache. It may be empty at any time."""
        if not NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot name a cache", fix="use letters, digits, . - and _")
        cached = Cache(_absolute("a cache", path), name, sharing)
        return replace(self, caches=_placed(self.caches, cached))

    def service(
        self,
        name: str,
        spec: StepSpec,
        *,
        ports: Iterable[int] = (),
        start: timedelta | None = None,
    ) -> StepSpec:
        """Run this beside the step, which reaches it under the name, and ends when it ends.

        The step begins when it listens on all of these TCP `ports`; else it fails after `start`, or 30 s. Without ports
        nobody waits.
        """
        _positive("start limit", start, timedelta(0))
        try:
            added = Service(name, spec, tuple(sorted(set(ports))), start)
        except ValueError as error:
            raise UsageError(
                str(error),
                fix="names have a-z, digits and -, ports are 1 to 65535; outputs, input and timeout are the step's",
            ) from error
        kept = tuple(one for one in self.services if one.name != name)
        services = sorted((*kept, added), key=lambda one: one.name)
        return replace(self, services=tuple(services))

    def output(self, name: str, path: str | os.PathLike[str]) -> StepSpec:
        """Keep this file or directory as an artifact; relative paths begin at the working directory."""
        if not NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot name an output", fix="use letters, digits, . - and _"
            )
        text = _text("an output's path", os.fspath(path))
        if not text or ".." in text.split("/"):
            raise UsageError(f"{text!r} is no path of an output", fix="name a path without ..")
        outputs = {**dict(self.declared_outputs), name: text}
        return replace(self, declared_outputs=tuple(sorted(outputs.items())))

    def network(self, on: bool = True) -> StepSpec:  # noqa: FBT001, FBT002 - reads as a switch
        """Let the step use the network, or not; without this it may not."""
        return replace(self, networked=on)

    def limits(
        self,
        *,
        timeout: timedelta | None = None,
        memory: int | None = None,
        cpu: timedelta | None = None,
        output: int | None = None,
        file: int | None = None,
        files: int | None = None,
    ) -> StepSpec:
        """Bound the step; None changes nothing.

        `memory`: bytes. `cpu`: processor time of each process. `output`: bytes kept of each stream. `file`: bytes of
        the largest file that is written. `files`: files that a process may have open.
        """
        _positive("timeout", timeout, timedelta(0))
        _positive("memory limit", memory, 0)
        _positive("cpu limit", cpu, timedelta(0))
        _positive("file limit", file, 0)
        _positive("limit of open files", files, 0)
        _positive("output limit", output, -1)
        return replace(
            self,
            time_limit=self.time_limit if timeout is None else timeout,
            memory_limit=self.memory_limit if memory is None else memory,
            cpu_limit=self.cpu_limit if cpu is None else cpu,
            output_limit=self.output_limit if output is None else output,
            file_limit=self.file_limit if file is None else file,
            open_limit=self.open_limit if files is None else files,
        )

    def expect(self, *codes: int) -> StepSpec:
        """Count these exit codes, 0 to 255, as success, and no others; without it, only 0."""
        if not codes:
            raise UsageError(
                "a step expects at least one exit code", fix="name them: .expect(0, 1)"
            )
        if any(code not in _EXIT_CODES for code in codes):
            raise UsageError(f"exit codes are 0 to 255, not {codes}")
        return replace(self, exit_codes=tuple(sorted(set(codes))))

    def stdin(self, text: str) -> StepSpec:
        """Write this text to the standard input, then close it."""
        return replace(self, input=text)

    def idempotent(self, yes: bool = True) -> StepSpec:  # noqa: FBT001, FBT002 - reads as a switch
        """Say that it may run twice: only then is it run again when nobody knows whether it ran."""
        return replace(self, repeatable=yes)

    def cacheable(self, yes: bool = True) -> StepSpec:  # noqa: FBT001, FBT002 - reads as a switch
        """Let an engine answer from its cache. Secrets are no part of what it compares."""
        return replace(self, reusable=yes)

    def on_host(self, yes: bool = True) -> StepSpec:  # noqa: FBT001, FBT002 - reads as a switch
        """Run it as a process although an engine runs other steps without an image: what it makes is the host's."""
        return replace(self, host_only=yes)


def command(*args: str | os.PathLike[str]) -> StepSpec:
    """Run a program with arguments as they are, without a shell. Raises `UsageError`."""
    if not args or not os.fspath(args[0]):
        raise UsageError("a command needs a program", fix='name it first: command("ruff", "check")')
    return StepSpec().exec(*args)


def container(image: str) -> StepSpec:
    """A step inside an image: add commands with `.exec()`. A digest (`name@sha256:…`) always names the same content.

    `image`: a registry reference, `oci:PATH` of an archive, `rootfs:PATH` of a directory. Raises `UsageError`.
    """
    images.parse(image)
    return StepSpec(image=image)


def _writes(spec: StepSpec) -> bool:
    """Whether it may write to a file or directory of the host."""
    return any(isinstance(one.source, Local) and not one.read_only for one in spec.mounts)


def _placed(present: tuple[_Item, ...], added: _Item) -> tuple[_Item, ...]:
    """With this one, in place of one at the same path or of the same name."""

    def key(one: _Item) -> str:
        return one.name if isinstance(one, Secret) else one.path

    kept = tuple(one for one in present if key(one) != key(added))
    return tuple(sorted((*kept, added), key=key))


def _absolute(what: str, path: str | os.PathLike[str]) -> str:
    text = _text(f"{what}'s path", os.fspath(path))
    if not text.startswith("/") or ".." in text.split("/") or os.path.normpath(text) == "/":
        raise UsageError(
            f"{what} at {text!r} has no place", fix="name an absolute path below / without .."
        )
    return os.path.normpath(text)


def _variable(name: str) -> None:
    if not _VARIABLE.fullmatch(name):
        raise UsageError(f"{name!r} cannot name an environment variable")


def _positive(what: str, value: int | timedelta | None, floor: int | timedelta) -> None:
    if value is not None and value <= floor:  # type: ignore[operator]  # both of one kind
        raise UsageError(f"a step's {what} is too small", why=f"it is {value}")


def _text(what: str, value: str) -> str:
    """The value, if the operating system can take it."""
    if "\0" in value:
        raise UsageError(f"{what} of a step contains a NUL character", why=f"it is {value!r}")
    return value
