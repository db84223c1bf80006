"""What failures around a Dagger engine mean: from plain facts of an SDK exception to a class and a remedy. Pure.

Above: `steps/executors/dagger/errors.py`, which takes the facts from an exception. Whether the path of the failed query
says `from` (the image) or `withExec` (the run) decides more than any text does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from msgspec import Struct

from switchgear.resilience.classes import Verdict
from switchgear.resilience.process_failures import process_verdict

DAGGER = "dagger"
"""The dependency that an engine is."""
NO_PROGRAM = "fork/exec"
"""What the engine writes where a program cannot be started; its exit code is 1 then."""


class DaggerFacts(Struct, frozen=True, kw_only=True):
    """What is known of one failure, without the exception."""

    kinds: tuple[str, ...]
    """Names of the exception's type and of its causes' types, outermost first."""
    message: str = ""
    path: tuple[str, ...] = ()
    """Which link of the query failed."""
    status: int | None = None
    """Of the HTTP answer."""
    exit_code: int | None = None
    """Of a command that ended otherwise than expected."""
    stderr: str = ""
    """Of that command, or of a session that did not start."""
    own_command: bool = True
    """Whether that command is the step's; otherwise it is a service's."""


class Finding(NamedTuple):
    """What a failure means, for the step and for the session that it came through."""

    verdict: Verdict
    fatal: bool = False
    """Whether the session is of no use any more."""
    before_run: bool = False
    """Whether the step's commands certainly did not run: once, a new session may try again."""


_AGAIN = "start the engine, or look at its log"
_SESSION = Finding(Verdict("transient", dependency=DAGGER, fix=_AGAIN), fatal=True, before_run=True)
_CUT = Finding(Verdict("transient", outcome_known=False, dependency=DAGGER, fix=_AGAIN), fatal=True)
_LATE = Finding(
    Verdict(
        "timeout",
        outcome_known=False,
        dependency=DAGGER,
        fix="look whether the engine is frozen or overloaded",
    ),
    fatal=True,
)
_UNAUTHORISED = Finding(
    Verdict("auth", retryable=False, dependency=DAGGER, fix="check the session's token"),
    fatal=True,
    before_run=True,
)
_SKEW = Finding(
    Verdict(
        "invalid",
        retryable=False,
        dependency=DAGGER,
        fix="use versions of CLI and engine that fit each other",
    ),
    fatal=True,
    before_run=True,
)
_MISUSE = Finding(
    Verdict("invalid", retryable=False, fix="the engine does not know this: compare its version")
)
_SETTINGS = Finding(
    Verdict("invalid", retryable=False, fix="correct the settings of the session"),
    fatal=True,
    before_run=True,
)
_BUG = Finding(Verdict("bug", retryable=False, outcome_known=False))
_CANCELLED = Finding(Verdict("cancelled", retryable=False))

_SESSION_TEXT = re.compile(
    r"session is closing|client (is )?closed|session \S* ?not found|no such session"
    r"|waiting for client session attachables"
)
_SHUTDOWN_TEXT = re.compile(r"engine is shutting down|server is shutting down")
_SERVICE_TEXT = re.compile(r"bound service .*exited|service exited")
_SECRET_TEXT = re.compile(
    r"secret (env|file)\S* .*not found|failed to read secret|secret .* not found"
)
_RESOURCE_TEXT = re.compile(
    r"no space left|cannot allocate memory|too many open files|read-only file system"
)
_MOUNT_TEXT = re.compile(r"create mount target|create mountpoint")
_SKEW_TEXT = re.compile(
    r"incompatible|minimum (supported )?version|version mismatch|required.*version"
)
_SCHEME_TEXT = re.compile(r"no driver for scheme|unsupported scheme|invalid .*(url|scheme|address)")

_REGISTRY: tuple[tuple[re.Pattern[str], Verdict], ...] = (
    (
        re.compile(r"\b429\b|too ?many ?requests"),
        Verdict("rate-limited", fix="log in to the registry, use a mirror, or wait"),
    ),
    (
        re.compile(r"\b40[13]\b|unauthorized|forbidden|denied"),
        Verdict("auth", retryable=False, fix="give the engine credentials for the registry"),
    ),
    (
        re.compile(r"invalid reference format|: not found|manifest unknown|\b404\b"),
        Verdict("invalid", retryable=False, fix="correct the image's name"),
    ),
    (
        re.compile(
            r"server misbehaving|no such host|connection re(fused|set)|\beof\b|\b50[0-9]\b"
            r"|time(d )?-?out|deadline exceeded|unreachable|tls"
        ),
        Verdict("transient", fix="look whether the registry can be reached from the engine"),
    ),
)
"""What the failure of a pull says, in order; the registry's host is added."""


def dagger_finding(facts: DaggerFacts, *, registry: str = "") -> Finding:
    """What this failure means. `registry`: the host of the step's image, which failing pulls speak against."""
    first = facts.kinds[0] if facts.kinds else ""
    if first == "ExecError":
        return _of_command(facts)
    if first == "QueryError":
        return _of_query(facts, registry)
    if first == "PullTimeout":
        return _slow_pull(registry)
    for kinds, decide in _BY_KIND:
        if kinds & set(facts.kinds):
            return decide(facts)
    return _BUG


def not_begun(finding: Finding) -> Finding:
    """The same for whoever knows that no command had begun."""
    verdict = finding.verdict._replace(outcome_known=True)
    return finding._replace(before_run=True, verdict=verdict)


def dagger_verdict(facts: DaggerFacts, *, registry: str = "") -> Verdict:
    """As `dagger_finding`, for whoever has no session to think of."""
    return dagger_finding(facts, registry=registry).verdict


def _of_command(facts: DaggerFacts) -> Finding:
    """A command ended: the engine is well."""
    if not facts.own_command:
        fix = "read the error output of the service, which ended"
        return Finding(Verdict("step", outcome_known=False, fix=fix))
    if facts.exit_code == 1 and NO_PROGRAM in facts.stderr:
        fix = "install the program into the image, or name its path there"
        return Finding(Verdict("invalid", retryable=False, fix=fix), before_run=True)
    if facts.exit_code is not None and facts.exit_code < 0:
        return _of_container(facts.message.lower())
    return Finding(process_verdict(facts.exit_code))


def _of_container(text: str) -> Finding:
    """There is no exit code: the engine had no container for the command, or lost it."""
    if _MOUNT_TEXT.search(text):
        fix = "mount nothing inside of a read-only mount that has no place for it"
        return Finding(Verdict("invalid", retryable=False, fix=fix), before_run=True)
    fix = "read the engine's log: it could not run the container"
    return Finding(Verdict("transient", outcome_known=False, fix=fix))


def _of_query(facts: DaggerFacts, registry: str) -> Finding:
    text = facts.message.lower()
    ran = "withExec" in facts.path
    if _SESSION_TEXT.search(text):
        return _SESSION
    if _SHUTDOWN_TEXT.search(text):
        return _CUT
    if _SERVICE_TEXT.search(text):
        fix = "read the output of the service that the step uses"
        return Finding(Verdict("step", outcome_known=not ran, fix=fix))
    if _SECRET_TEXT.search(text):
        fix = "set the secret where the agent runs"
        return Finding(Verdict("invalid", retryable=False, fix=fix), before_run=True)
    if _RESOURCE_TEXT.search(text):
        fix = "free space on the engine's host, or prune its cache"
        return Finding(Verdict("resource", outcome_known=not ran, dependency=DAGGER, fix=fix))
    if "from" in facts.path and not ran:
        return _of_pull(text, registry)
    if "context canceled" in text:
        return Finding(Verdict("transient", outcome_known=not ran, dependency=DAGGER))
    found = _BUG if "panic while resolving" in text else _MISUSE
    return found._replace(verdict=found.verdict._replace(outcome_known=not ran))


def _of_pull(text: str, registry: str) -> Finding:
    against = f"registry:{registry}" if registry else ""
    for pattern, verdict in _REGISTRY:
        if pattern.search(text):
            return Finding(verdict._replace(dependency=against), before_run=True)
    return _MISUSE._replace(before_run=True)


def _slow_pull(registry: str) -> Finding:
    fix = "look whether the registry, or the archive's disk, is slow; raise the pull timeout"
    against = f"registry:{registry}" if registry else DAGGER
    return Finding(Verdict("timeout", dependency=against, fix=fix), before_run=True)


def _of_transport(facts: DaggerFacts) -> Finding:
    kinds = set(facts.kinds)
    if "TransportClosed" in kinds or kinds & _NOT_SENT:
        return _SESSION
    if facts.status == _UNAUTHORISED_STATUS:
        return _UNAUTHORISED
    if facts.status is not None and facts.status < _SERVER_ERROR:
        return _MISUSE
    return _CUT


def _of_connect(facts: DaggerFacts) -> Finding:
    """Connecting runs nothing."""
    if facts.status == _UNAUTHORISED_STATUS:
        return _UNAUTHORISED
    if facts.status is not None:
        return _SESSION if facts.status >= _SERVER_ERROR else _SETTINGS
    if set(facts.kinds) & (_NOT_SENT | {"TransportConnectionFailed", "TimeoutError"}):
        return _SESSION
    if _SESSION_TEXT.search(facts.message.lower()):
        return _SESSION
    return _SETTINGS


def _of_start(facts: DaggerFacts) -> Finding:
    """A session that did not start: only its error output says why."""
    if "FileNotFoundError" in facts.kinds or "PermissionError" in facts.kinds:
        return _SETTINGS
    text = f"{facts.message}\n{facts.stderr}".lower()
    if _SKEW_TEXT.search(text):
        return _SKEW
    return _SETTINGS if _SCHEME_TEXT.search(text) else _SESSION


_UNAUTHORISED_STATUS = 401
_SERVER_ERROR = 500
_NOT_SENT = frozenset({"ConnectError", "ConnectTimeout", "ConnectionRefusedError"})
"""Nothing was written: the outcome is known."""

_BY_KIND: tuple[tuple[frozenset[str], Callable[[DaggerFacts], Finding]], ...] = (
    (frozenset({"CancelledError"}), lambda _: _CANCELLED),
    (frozenset({"DownloadError", "ProvisionError"}), lambda _: _SETTINGS),
    (frozenset({"SessionError", "SessionFailed", "TimeoutExpired"}), _of_start),
    (frozenset({"ClientConnectionError"}), _of_connect),
    (frozenset({"InvalidQueryError"}), lambda _: _MISUSE),
    (frozenset({"TransportError", "SessionLost"}), _of_transport),
    (frozenset({"TimeoutError"}), lambda _: _LATE),
)
"""Kinds of exceptions beside those that an engine's answer makes, the first that fits decides."""
