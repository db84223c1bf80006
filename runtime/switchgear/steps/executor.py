"""The seam between steps and the ways to run them.

Above: `runner`, which chooses an executor by a `Plan`, asks the `Guard` (breakers), judges the outcome.
Below, and not knowing each other: `executors/process.py` (bubblewrap), `executors/dagger/` (an engine).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from switchgear.steps.result import Outcome
    from switchgear.steps.spec import StepSpec
    from switchgear.steps.workspace import Workspace

Stream = Literal["stdout", "stderr"]
OnLine = Callable[[str, str], None]
"""Told each line of output as it comes, with its stream, on the event loop: it must return at once and not raise."""


class Unsupported(Struct, frozen=True, kw_only=True):
    """Why an executor cannot run a spec; decided before anything runs."""

    feature: str
    """What the spec asks for, such as `services`."""
    why: str
    fix: str


class Health(Struct, frozen=True, kw_only=True):
    """Whether an executor could run something now."""

    ok: bool
    why: str = ""
    """What is wrong; empty when nothing is."""


class Executor(Protocol):
    """One way to run steps."""

    @property
    def name(self) -> str:
        """`process`, `dagger`."""
        ...

    def unsupported(self, spec: StepSpec) -> Unsupported | None:
        """What of the spec it cannot do; None: it will try. Looks, and runs nothing."""
        ...

    def dependencies(self, spec: StepSpec) -> tuple[str, ...]:
        """What the whole step needs, a name for each breaker: `dagger`, `git:github.com`, `resource:disk`.

        What is called only on the way, as a registry for a pull, the executor guards where it calls it.
        """
        ...

    async def execute(
        self, spec: StepSpec, *, on_line: OnLine | None, workspace: Workspace
    ) -> Outcome:
        """Run it to its end; whatever ends this call, nothing of the step runs on.

        An exit code is an outcome, expected or not, unless it is known to be the host's doing, as when the kernel
        kills for want of memory. Raises StepFailed for that and for all else, with its error_class and the dependency
        that failed. Sets `workspace.in_doubt` while commands may have taken effect: what it raises then, whatever it
        is, has an unknown outcome.
        """
        ...

    async def health(self) -> Health:
        """Whether it could run something now, within a second or two."""
        ...

    async def close(self) -> None:
        """Let go of sessions and processes; may be used again afterwards."""
        ...


class Asked(NamedTuple):
    """A step of a task, as plans and guards see it."""

    spec: StepSpec
    key: str
    task: str = ""
    """Empty outside of tasks."""
    capability: str = ""


class RunOn(Protocol):
    """How a plan runs the step."""

    def __call__(self, name: str, *, quiet: bool = False) -> Awaitable[Outcome]:
        """Run it on the executor of this name, guarded; `quiet`: its lines are not handed on as they come.

        Raises StepFailed, also for what that executor cannot do.
        """
        ...


Plan = Callable[[Asked, RunOn], Awaitable["Outcome"]]
"""Decides what runs where: one executor, both, one after the other. What it decided goes into the outcome's notes."""
Guard = Callable[[Asked, tuple[str, ...], Callable[[], Awaitable["Outcome"]]], Awaitable["Outcome"]]
"""Runs one execution under the breakers of these dependencies, or raises because one is open."""
