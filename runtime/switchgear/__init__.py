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
    from switchgear.agent.outcome import Outcome
    from switchgear.agent.pipelines import PipelineResult, load_pipelines
    from switchgear.agent.resource import Resource
    from switchgear.agent.step import step
    from switchgear.agent.task_info import TaskInfo
    from switchgear.client.connect import connect
    from switchgear.client.mesh import Mesh
    from switchgear.client.sync import SyncMesh, SyncTaskHandle
    from switchgear.contract.approval import Approval
    from switchgear.contract.artifact import Artifact
    from switchgear.contract.capability import Capability
    from switchgear.contract.cron import Cron
    from switchgear.contract.topic import Message, Topic
    from switchgear.contract.values import Retry, RetryRule
    from switchgear.errors import (
        BreakerOpen,
        ClearTextRefused,
        ConfigError,
        Conflict,
        DuplicateKey,
        ExtraMissing,
        Forbidden,
        InvalidInput,
        NotDeclared,
        NotFound,
        NotRecordable,
        OutcomeUnknown,
        Overloaded,
        Permanent,
        ProtocolError,
        Retryable,
        RolloutRefused,
        ServerUnfit,
        SignalTimeout,
        StepChanged,
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
    from switchgear.pipelines.faults import PipelineInvalid
    from switchgear.resilience.breaker import Breaker
    from switchgear.steps.result import RunResult
    from switchgear.steps.sources import git
    from switchgear.steps.spec import StepSpec, command, container
    from switchgear.tasks.chunks import Chunk
    from switchgear.tasks.events import TaskEvent
    from switchgear.tasks.handle import TaskHandle

__version__ = "0.1.0"

_HOMES: dict[str, str] = {
    # declare
    "Agent": "agent.declare",
    "Breaker": "resilience.breaker",
    "Capability": "contract.capability",
    "Cron": "contract.cron",
    "Resource": "agent.resource",
    "Retry": "contract.values",
    "RetryRule": "contract.values",
    "Topic": "contract.topic",
    "load_pipelines": "agent.pipelines",
    "step": "agent.step",
    # handle
    "Approval": "contract.approval",
    "Artifact": "contract.artifact",
    "Context": "agent.context",
    "Message": "contract.topic",
    "Outcome": "agent.outcome",
    "PipelineResult": "agent.pipelines",
    "RunResult": "steps.result",
    "StepSpec": "steps.spec",
    "TaskInfo": "agent.task_info",
    "command": "steps.spec",
    "container": "steps.spec",
    "git": "steps.sources",
    # call
    "Chunk": "tasks.chunks",
    "Mesh": "client.mesh",
    "SyncMesh": "client.sync",
    "SyncTaskHandle": "client.sync",
    "TaskEvent": "tasks.events",
    "TaskHandle": "tasks.handle",
    "connect": "client.connect",
    # errors that handlers raise
    "Permanent": "errors",
    "Retryable": "errors",
    # errors that callers meet
    "Conflict": "errors",
    "NotFound": "errors",
    "OutcomeUnknown": "errors",
    "Overloaded": "errors",
    "RolloutRefused": "errors",
    "TaskCancelled": "errors",
    "TaskDead": "errors",
    "TaskExpired": "errors",
    "TaskFailed": "errors",
    "TaskRejected": "errors",
    "WaitTimeout": "errors",
    # errors that handlers meet
    "BreakerOpen": "errors",
    "DuplicateKey": "errors",
    "InvalidInput": "errors",
    "NotDeclared": "errors",
    "NotRecordable": "errors",
    "SignalTimeout": "errors",
    "StepChanged": "errors",
    "StepFailed": "errors",
    # errors that both meet
    "ClearTextRefused": "errors",
    "ConfigError": "errors",
    "ExtraMissing": "errors",
    "Forbidden": "errors",
    "PipelineInvalid": "pipelines.faults",
    "ProtocolError": "errors",
    "ServerUnfit": "errors",
    "SwitchgearError": "errors",
    "Unavailable": "errors",
    "UsageError": "errors",
}

__all__ = [
    # declare
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
    # handle
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
    # call
    "Chunk",
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
    "Overloaded",
    "RolloutRefused",
    "TaskCancelled",
    "TaskDead",
    "TaskExpired",
    "TaskFailed",
    "TaskRejected",
    "WaitTimeout",
    # errors that handlers meet
    "BreakerOpen",
    "DuplicateKey",
    "InvalidInput",
    "NotDeclared",
    "NotRecordable",
    "SignalTimeout",
    "StepChanged",
    "StepFailed",
    # errors that both meet
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
