"""What to run, as a frozen value: a command, its surroundings, its limits; built by chained calls.

    command("ruff", "check", ".").workdir("/src").expect(0, 1).limits(timeout=timedelta(minutes=2))

Fields are named apart from the methods that set them. A container, its mounts, caches, secrets,
services and outputs will be more fields of the same struct: whoever builds a spec for a process
today keeps what is written.
"""

from __future__ import annotations

import os
from datetime import timedelta

from msgspec import Struct
from msgspec.structs import replace

from switchgear.errors import UsageError

DEFAULT_OUTPUT = 256 * 1024
"""Bytes kept of each output stream: as much as the ledger stores without a blob."""


class StepSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One command and how to run it; hashable, serialisable, equal by content."""

    args: tuple[str, ...]
    """Program and arguments; never seen by a shell."""
    directory: str | None = None
    """Working directory; None: the runner's own."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables on top of the clean environment, sorted by name."""
    exit_codes: tuple[int, ...] = (0,)
    """Exit codes that count as success."""
    time_limit: timedelta | None = None
    """Longest duration; None: the attempt's own limit holds."""
    memory_limit: int | None = None
    """Bytes of address space for each process; None: unlimited."""
    output_limit: int = DEFAULT_OUTPUT
    """Bytes kept of each output stream: the last ones."""
    input: str | None = None
    """Text for the standard input; None: it is empty."""

    def workdir(self, path: str | os.PathLike[str]) -> StepSpec:
        """Run in this directory; it must exist when the step starts."""
        return replace(self, directory=_text("the working directory", os.fspath(path)))

    def env(self, **variables: str) -> StepSpec:
        """Add environment variables; a later value of a name replaces an earlier one."""
        for name, value in variables.items():
            _text(f"the variable {name}", value)
            if not name or "=" in name:
                raise UsageError(f"{name!r} cannot name an environment variable")
        return replace(
            self, environment=tuple(sorted({**dict(self.environment), **variables}.items()))
        )

    def limits(
        self,
        *,
        timeout: timedelta | None = None,
        memory: int | None = None,
        output: int | None = None,
    ) -> StepSpec:
        """Bound the step; None changes nothing.

        `memory`: bytes of address space for each process. `output`: bytes kept of each stream.
        """
        if timeout is not None and timeout <= timedelta(0):
            raise UsageError("a step's timeout must be longer than nothing", why=f"it is {timeout}")
        if memory is not None and memory <= 0:
            raise UsageError("a step's memory limit must be positive", why=f"it is {memory} bytes")
        if output is not None and output < 0:
            raise UsageError(
                "a step's output limit cannot be negative", why=f"it is {output} bytes"
            )
        return replace(
            self,
            time_limit=self.time_limit if timeout is None else timeout,
            memory_limit=self.memory_limit if memory is None else memory,
            output_limit=self.output_limit if output is None else output,
        )

    def expect(self, *codes: int) -> StepSpec:
        """Count these exit codes as success, and no others; without it, only 0."""
        if not codes:
            raise UsageError(
                "a step expects at least one exit code", fix="name them: .expect(0, 1)"
            )
        return replace(self, exit_codes=tuple(sorted(set(codes))))

    def stdin(self, text: str) -> StepSpec:
        """Write this text to the standard input, then close it."""
        return replace(self, input=text)


def command(*args: str | os.PathLike[str]) -> StepSpec:
    """Run a program with arguments as they are, without a shell. Raises `UsageError`."""
    if not args or not os.fspath(args[0]):
        raise UsageError("a command needs a program", fix='name it first: command("ruff", "check")')
    return StepSpec(args=tuple(_text("an argument", os.fspath(arg)) for arg in args))


def _text(what: str, value: str) -> str:
    """The value, if the operating system can take it."""
    if "\0" in value:
        raise UsageError(f"{what} of a step contains a NUL character", why=f"it is {value!r}")
    return value
