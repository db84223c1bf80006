"""A pipeline as a value: what a file declares, read but not filled in. Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal, get_args

from msgspec import Struct, field

from switchgear.contract.values import Retry

Kind = Literal["string", "integer", "number", "boolean", "list"]
KINDS: tuple[str, ...] = get_args(Kind)

ONCE = Retry(max_attempts=1)
MAX_STEPS = 100
MAX_COMBINATIONS = 64
"""Of one step's matrix."""
MAX_JOBS = 256
"""Steps with their combinations, of one run."""


class Parameter(Struct, frozen=True, kw_only=True):
    """One field of the capability's input."""

    name: str
    kind: Kind
    description: str = ""
    required: bool = True
    default: Any = None
    """None where it has none: then an absent one is null, or refused where it is required."""
    choices: tuple[Any, ...] = ()
    """The values that it may have; of a list, that its elements may have."""
    items: Kind = "string"
    """What a list holds."""
    pattern: str = ""
    """A regular expression that a string, or a list's element, matches somewhere."""
    minimum: float | None = None
    maximum: float | None = None


class Mount(Struct, frozen=True, kw_only=True):
    """What a step finds at a path; one of `local`, `git` and `artifact` is given."""

    path: str
    local: str = ""
    git: str = ""
    ref: str = ""
    artifact: tuple[str, str] | None = None
    """Step and output."""
    writable: bool = False
    optional: bool = False
    """Whether the step may run where the artifact is missing."""


class Step(Struct, frozen=True, kw_only=True):
    """One step; texts may hold `${{ expressions }}` but for names, `script` and `secrets`."""

    name: str
    description: str = ""
    needs: tuple[str, ...] = ()
    condition: str = ""
    """The expression of `if`; empty: what it needs has succeeded."""
    image: str = ""
    commands: tuple[tuple[str, ...], ...] = ()
    script: str = ""
    interpreter: tuple[str, ...] = ("sh", "-euc")
    workdir: str = ""
    env: dict[str, str] = field(default_factory=dict[str, str])
    secrets: dict[str, str] = field(default_factory=dict[str, str])
    mounts: tuple[Mount, ...] = ()
    caches: dict[str, str] = field(default_factory=dict[str, str])
    """Path to name."""
    outputs: dict[str, str] = field(default_factory=dict[str, str])
    """Name to path."""
    stdin: str = ""
    timeout: timedelta | None = None
    memory: int | None = None
    cpu: timedelta | None = None
    network: bool = False
    expect: tuple[int, ...] = (0,)
    idempotent: bool = False
    cacheable: bool = False
    retry: Retry = ONCE
    allow_failure: bool = False
    matrix: dict[str, tuple[Any, ...] | str] = field(
        default_factory=dict[str, tuple[Any, ...] | str]
    )
    """Values by axis; a text names the list that gives them: `${{ params.versions }}`."""
    exclude: tuple[dict[str, Any], ...] = ()
    """Combinations that are left out: those with all of these values."""


class Pipeline(Struct, frozen=True, kw_only=True):
    """A whole file."""

    name: str
    """Also of the capability."""
    description: str = ""
    timeout: timedelta | None = timedelta(hours=1)
    """Of one attempt."""
    attempts: int = 1
    """Attempts of the task; a later one runs only what has not succeeded."""
    concurrency: int = 4
    """Steps that run at a time."""
    fail_fast: bool = False
    """Whether no further step begins when one has failed, but for those whose `if` asks for a status."""
    parameters: tuple[Parameter, ...] = ()
    steps: tuple[Step, ...] = ()
    outputs: dict[str, str] = field(default_factory=dict[str, str])
    """Values of the result, by name."""

    def step(self, name: str) -> Step:
        """The step of this name. Raises KeyError."""
        for one in self.steps:
            if one.name == name:
                return one
        raise KeyError(name)
