"""Switchgear: an event-driven multi-agent runtime over NATS.

The front door: everything a user writes comes from here, and is loaded when it is first used, since the CLI
lives below this package and importing it must cost nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from switchgear.agent.context import Context
    from switchgear.agent.declare import Agent
    from switchgear.agent.resource import Resource
    from switchgear.agent.step import step
    from switchgear.agent.task_info import TaskInfo
    from switchgear.client.connect import connect
    from switchgear.client.events import TaskEvent
    from switchgear.client.handle import TaskHandle
    from switchgear.client.mesh import Mesh
    from switchgear.client.sync import SyncMesh, SyncTaskHandle
    from switchgear.contract.capability import Capability
    from switchgear.contract.values import Retry
    from switchgear.errors import (
        ClearTextRefused,
        ConfigError,
        Conflict,
        DuplicateKey,
        ExtraMissing,
        InvalidInput,
        NotDeclared,
        NotFound,
        NotRecordable,
        OutcomeUnknown,
        Permanent,
        ProtocolError,
        Retryable,
        ServerUnfit,
        StepFailed,
        SwitchgearError,
        TaskCancelled,
        TaskDead,
        TaskExpired,
        TaskFailed,
        TaskRejected,
        Unavailable,
        UsageError,
        WaitTimeout,
    )
    from switchgear.steps.result import RunResult
    from switchgear.steps.spec import StepSpec, command

__version__ = "0.1.0"

_HOMES: dict[str, str] = {
    # declare
    "Agent": "agent.declare",
    "Capability": "contract.capability",
    "Resource": "agent.resource",
    "Retry": "contract.values",
    "step": "agent.step",
    # handle
    "Context": "agent.context",
    "RunResult": "steps.result",
    "StepSpec": "steps.spec",
    "TaskInfo": "agent.task_info",
    "command": "steps.spec",
    # call
    "Mesh": "client.mesh",
    "SyncMesh": "client.sync",
    "SyncTaskHandle": "client.sync",
    "TaskEvent": "client.events",
    "TaskHandle": "client.handle",
    "connect": "client.connect",
    # errors that handlers raise
    "Permanent": "errors",
    "Retryable": "errors",
    # errors that callers meet
    "Conflict": "errors",
    "NotFound": "errors",
    "OutcomeUnknown": "errors",
    "TaskCancelled": "errors",
    "TaskDead": "errors",
    "TaskExpired": "errors",
    "TaskFailed": "errors",
    "TaskRejected": "errors",
    "WaitTimeout": "errors",
    # errors that handlers meet
    "DuplicateKey": "errors",
    "InvalidInput": "errors",
    "NotDeclared": "errors",
    "NotRecordable": "errors",
    "StepFailed": "errors",
    # errors that both meet
    "ClearTextRefused": "errors",
    "ConfigError": "errors",
    "ExtraMissing": "errors",
    "ProtocolError": "errors",
    "ServerUnfit": "errors",
    "SwitchgearError": "errors",
    "Unavailable": "errors",
    "UsageError": "errors",
}

__all__ = [
    # declare
    "Agent",
    "Capability",
    "Resource",
    "Retry",
    "step",
    # handle
    "Context",
    "RunResult",
    "StepSpec",
    "TaskInfo",
    "command",
    # call
    "Mesh",
    "SyncMesh",
    "SyncTaskHandle",
    "TaskEvent",
    "TaskHandle",
    "connect",
    # errors that handlers raise
    "Permanent",
    "Retryable",
    # errors that callers meet
    "Conflict",
    "NotFound",
    "OutcomeUnknown",
    "TaskCancelled",
    "TaskDead",
    "TaskExpired",
    "TaskFailed",
    "TaskRejected",
    "WaitTimeout",
    # errors that handlers meet
    "DuplicateKey",
    "InvalidInput",
    "NotDeclared",
    "NotRecordable",
    "StepFailed",
    # errors that both meet
    "ClearTextRefused",
    "ConfigError",
    "ExtraMissing",
    "ProtocolError",
    "ServerUnfit",
    "SwitchgearError",
    "Unavailable",
    "UsageError",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
