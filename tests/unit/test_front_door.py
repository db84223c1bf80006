"""The front door: what `switchgear` exports, what importing it costs, and that types and names agree."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import switchgear

DOOR = Path(str(switchgear.__file__))

HOMES: dict[str, str] = vars(switchgear)["_HOMES"]
GROUPS = {
    "declare": [
        "Agent",
        "Breaker",
        "Capability",
        "Cron",
        "Resource",
        "Retry",
        "RetryRule",
        "Topic",
        "load_pipelines",
        "step",
    ],
    "handle": [
        "Approval",
        "Artifact",
        "Context",
        "Message",
        "Outcome",
        "PipelineResult",
        "RunResult",
        "StepSpec",
        "TaskInfo",
        "command",
        "container",
        "git",
    ],
    "call": ["Chunk", "Mesh", "SyncMesh", "SyncTaskHandle", "TaskEvent", "TaskHandle", "connect"],
    "errors that handlers raise": ["Permanent", "Retryable"],
    "errors that callers meet": [
        "Conflict",
        "NotFound",
        "OutcomeUnknown",
        "Overloaded",
        "RolloutRefused",
        "TaskCancelled",
        "TaskDead",
        "TaskExpired",
        "TaskFailed",
        "TaskRejected",
        "WaitTimeout",
    ],
    "errors that handlers meet": [
        "BreakerOpen",
        "DuplicateKey",
        "InvalidInput",
        "NotDeclared",
        "NotRecordable",
        "SignalTimeout",
        "StepChanged",
        "StepFailed",
    ],
    "errors that both meet": [
        "ClearTextRefused",
        "ConfigError",
        "ExtraMissing",
        "Forbidden",
        "PipelineInvalid",
        "ProtocolError",
        "ServerUnfit",
        "SwitchgearError",
        "Unavailable",
        "UsageError",
    ],
}
"""Pinned: a name that is added or removed here is a change of the public API."""


def test_exports_are_pinned_and_grouped() -> None:
    """`__all__` holds the groups in order, each headed by its comment."""
    assert switchgear.__all__ == [name for names in GROUPS.values() for name in names]
    source = DOOR.read_text(encoding="utf-8")
    listed = source[source.index("__all__ = [") :]
    comments = [
        line.strip().removeprefix("# ")
        for line in listed[: listed.index("]")].splitlines()
        if line.strip().startswith("#")
    ]
    assert comments == list(GROUPS)


@pytest.mark.parametrize("name", switchgear.__all__)
def test_exported_name_can_be_imported(name: str) -> None:
    """Each comes from the module that the table names, and has a docstring."""
    value = getattr(switchgear, name)
    home = importlib.import_module(f"switchgear.{HOMES[name]}")
    assert getattr(home, name) is value
    assert value.__doc__


def test_unknown_name_is_an_attribute_error() -> None:
    """With the module and the name, as for any module."""
    with pytest.raises(AttributeError, match="'switchgear' has no attribute 'Agnet'"):
        getattr(switchgear, "Agnet")  # noqa: B009  # a name that no type checker accepts
    assert set(switchgear.__all__) <= set(dir(switchgear))


def test_type_checkers_see_what_is_imported_at_run_time() -> None:
    """The imports under TYPE_CHECKING name the same homes as the lazy table."""
    tree = ast.parse(DOOR.read_text(encoding="utf-8"))
    [guarded] = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    seen = {
        alias.name: str(node.module).removeprefix("switchgear.")
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == HOMES
    assert list(HOMES) == switchgear.__all__


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter has after this statement, beyond its own."""
    script = f"import sys; own = set(sys.modules); {statement}; print(*set(sys.modules) - own)"
    out = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout
    return set(out.split())


def test_importing_the_package_loads_nothing_else() -> None:
    """The CLI lives below this package, so importing it must cost nothing."""
    packages = {name.partition(".")[0] for name in loaded_by("import switchgear")}
    assert packages & {"nats", "msgspec", "asyncio", "jsonschema_rs", "packaging", "rich"} == set()
    assert {
        name for name in loaded_by("import switchgear") if name.startswith("switchgear.")
    } == set()


def test_declaring_an_agent_needs_no_broker_client() -> None:
    """nats-py, the coordinator's packages and the step runner come when an agent runs, or never."""
    loaded = loaded_by("from switchgear import Agent, Capability, Context, Retry, command, step")
    packages = {name.partition(".")[0] for name in loaded}
    assert packages & {"nats", "jsonschema_rs", "packaging", "rich", "cyclopts", "uvloop"} == set()
    assert "switchgear.steps.runner" not in loaded
