"""What failures around an engine mean, by plain facts: the measured table, and that no facts are without a class."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchgear.resilience.classes import CLASSES
from switchgear.resilience.dagger_failures import DaggerFacts, dagger_finding, dagger_verdict

REGISTRY = "registry.example"
AGAINST = f"registry:{REGISTRY}"


def facts(*kinds: str, **more: object) -> DaggerFacts:
    return DaggerFacts(kinds=kinds, **more)  # type: ignore[arg-type]  # as named


def query(message: str, *path: str) -> DaggerFacts:
    return facts("QueryError", message=message, path=path)


RUN = ("container", "from", "withExec", "stdout")
PULL = ("container", "from")

TABLE: list[tuple[DaggerFacts, str, bool, bool, str]] = [
    # facts, class, retryable, outcome known, dependency
    (facts("ExecError", exit_code=3), "step", True, True, ""),
    (facts("ExecError", exit_code=124), "timeout", True, False, ""),
    (facts("ExecError", exit_code=143), "timeout", True, False, ""),
    (facts("ExecError", exit_code=126), "invalid", False, True, ""),
    (facts("ExecError", exit_code=127), "invalid", False, True, ""),
    (
        facts("ExecError", exit_code=1, stderr="fork/exec /x: no such file"),
        "invalid",
        False,
        True,
        "",
    ),
    (facts("ExecError", exit_code=137), "resource", True, False, ""),
    (facts("ExecError", exit_code=129), "transient", True, False, ""),
    (facts("ExecError", exit_code=1, own_command=False), "step", True, False, ""),
    (
        facts("ExecError", exit_code=-1, message="create mount target file /w/x: read-only"),
        "invalid",
        False,
        True,
        "",
    ),
    (facts("ExecError", exit_code=-1, message="unheard of"), "transient", True, False, ""),
    (query("session is closing"), "transient", True, True, "dagger"),
    (query("client closed"), "transient", True, True, "dagger"),
    (query('session "x1" not found'), "transient", True, True, "dagger"),
    (query("waiting for client session attachables: x"), "transient", True, True, "dagger"),
    (query("engine is shutting down", *RUN), "transient", True, False, "dagger"),
    (query("bound service db has exited", *RUN), "step", True, False, ""),
    (query('secret env var not found: "A..."', *RUN), "invalid", False, True, ""),
    (query("429 Too Many Requests", *PULL), "rate-limited", True, True, AGAINST),
    (query("lookup x: server misbehaving", *PULL), "transient", True, True, AGAINST),
    (query("connect: connection refused", *PULL), "transient", True, True, AGAINST),
    (query("failed to do request: EOF", *PULL), "transient", True, True, AGAINST),
    (query("500 Internal Server Error", *PULL), "transient", True, True, AGAINST),
    (query("docker.io/x/y: not found", *PULL), "invalid", False, True, AGAINST),
    (query("401 Unauthorized", *PULL), "auth", False, True, AGAINST),
    (query("403 Forbidden", *PULL), "auth", False, True, AGAINST),
    (query("invalid reference format", *PULL), "invalid", False, True, AGAINST),
    (facts("PullTimeout"), "timeout", True, True, AGAINST),
    (query("no space left on device", *PULL), "resource", True, True, "dagger"),
    (query("no space left on device", *RUN), "resource", True, False, "dagger"),
    (query("cannot allocate memory", *RUN), "resource", True, False, "dagger"),
    (query("too many open files", *RUN), "resource", True, False, "dagger"),
    (query("read-only file system", *RUN), "resource", True, False, "dagger"),
    (query("context canceled", *RUN), "transient", True, False, "dagger"),
    (query("panic while resolving Container.x", *RUN), "bug", False, False, ""),
    (query("anything else", *RUN), "invalid", False, False, ""),
    (
        facts("TransportError", "TransportConnectionFailed", "ReadTimeout"),
        "transient",
        True,
        False,
        "dagger",
    ),
    (
        facts("TransportError", "TransportConnectionFailed", "RemoteProtocolError"),
        "transient",
        True,
        False,
        "dagger",
    ),
    (
        facts("TransportError", "TransportConnectionFailed", "ConnectError"),
        "transient",
        True,
        True,
        "dagger",
    ),
    (
        facts("TransportError", "TransportServerError", status=502),
        "transient",
        True,
        False,
        "dagger",
    ),
    (facts("TransportError", "TransportServerError", status=401), "auth", False, True, "dagger"),
    (facts("TransportError", "TransportServerError", status=413), "invalid", False, True, ""),
    (facts("TransportError", "TransportClosed"), "transient", True, True, "dagger"),
    (
        facts("ClientConnectionError", "TransportConnectionFailed", "ConnectError"),
        "transient",
        True,
        True,
        "dagger",
    ),
    (
        facts("ClientConnectionError", "TransportServerError", status=502),
        "transient",
        True,
        True,
        "dagger",
    ),
    (
        facts("ClientConnectionError", "TransportServerError", status=401),
        "auth",
        False,
        True,
        "dagger",
    ),
    (
        facts("ClientConnectionError", message="Invalid DAGGER_SESSION_PORT"),
        "invalid",
        False,
        True,
        "",
    ),
    (facts("SessionError", message="exit status 1"), "transient", True, True, "dagger"),
    (
        facts("SessionFailed", stderr="engine v0.18.0 is incompatible"),
        "invalid",
        False,
        True,
        "dagger",
    ),
    (facts("SessionFailed", stderr='no driver for scheme "x" found'), "invalid", False, True, ""),
    (facts("SessionFailed", "FileNotFoundError"), "invalid", False, True, ""),
    (facts("SessionLost"), "transient", True, False, "dagger"),
    (facts("TimeoutExpired"), "transient", True, True, "dagger"),
    (facts("DownloadError"), "invalid", False, True, ""),
    (facts("ProvisionError"), "invalid", False, True, ""),
    (facts("InvalidQueryError"), "invalid", False, True, ""),
    (facts("TypeError"), "bug", False, False, ""),
    (facts("KeyError"), "bug", False, False, ""),
    (facts("TransportQueryError"), "bug", False, False, ""),
    (facts("TransportAlreadyConnected"), "bug", False, False, ""),
    (facts("RuntimeError"), "bug", False, False, ""),
    (facts("TimeoutError"), "timeout", True, False, "dagger"),
    (facts("CancelledError"), "cancelled", False, True, ""),
]


@pytest.mark.parametrize(
    "row", TABLE, ids=lambda row: f"{'-'.join(row[0].kinds)} {row[0].message or row[0].exit_code}"
)
def test_each_failure_has_its_class(row: tuple[DaggerFacts, str, bool, bool, str]) -> None:
    given_facts, *expected = row
    found = dagger_verdict(given_facts, registry=REGISTRY)
    assert [found.error_class, found.retryable, found.outcome_known, found.dependency] == expected


def test_a_session_is_given_up_only_for_what_it_did() -> None:
    assert dagger_finding(query("session is closing")).fatal
    assert dagger_finding(facts("TransportError", "TransportServerError", status=502)).fatal
    assert not dagger_finding(query("429 Too Many Requests", *PULL), registry=REGISTRY).fatal
    assert not dagger_finding(facts("ExecError", exit_code=1)).fatal


def test_a_new_session_may_try_only_what_certainly_did_not_run() -> None:
    assert dagger_finding(query("client closed")).before_run
    assert not dagger_finding(query("engine is shutting down", *RUN)).before_run
    assert not dagger_finding(facts("SessionLost")).before_run


KINDS = sorted({kind for row in TABLE for kind in row[0].kinds} | {"Strange"})


@given(
    st.builds(
        DaggerFacts,
        kinds=st.lists(st.sampled_from(KINDS), max_size=4).map(tuple),
        message=st.text(max_size=60),
        path=st.lists(st.sampled_from(["container", "from", "withExec", "x"]), max_size=4).map(
            tuple
        ),
        status=st.none() | st.integers(100, 599),
        exit_code=st.none() | st.integers(0, 255),
        stderr=st.text(max_size=20),
        own_command=st.booleans(),
    ),
)
def test_no_failure_is_without_a_class_and_what_did_not_run_is_never_unknown(
    given_facts: DaggerFacts,
) -> None:
    found = dagger_finding(given_facts, registry=REGISTRY)
    assert found.verdict.error_class in CLASSES
    assert not found.before_run or found.verdict.outcome_known
