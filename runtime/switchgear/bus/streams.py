"""The streams of a mesh: created and brought up to date by any coordinator, from several replicas at once.

The settings are those of the table in docs/reference/protocol.md. A stream of the same name that was set up otherwise
in a way that cannot be changed is refused, never used: under other rules the ledger proves nothing.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, Final

import msgspec

from switchgear.bus.asking import ApiError, Asking
from switchgear.contract import limits, subjects
from switchgear.errors import ServerUnfit, Unavailable

GIB: Final = 1024 * limits.KIB * limits.KIB

_NOT_FOUND: Final = 10059
_NO_STORAGE: Final = frozenset({10023, 10047})
_SECOND: Final = 1_000_000_000
_DUPLICATES: Final = 120 * _SECOND
"""How long a stream remembers the ids of messages."""
RETRIES: Final = (0.05, 0.1, 0.2, None)
"""Seconds between attempts to create a stream that finds no room; None: the last one."""


class StreamSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How much the streams may hold, and on how many servers."""

    replicas: int = 1
    """Servers that keep each stream: 1 embedded, 3 in a cluster."""
    ledger_bytes: int = 4 * GIB
    """Bytes of the ledger; full, it refuses appends. An existing stream's limit is raised to it, never lowered."""
    blob_bytes: int = 4 * GIB
    """Bytes of payloads and artifacts."""
    registry_bytes: int = GIB // 4
    """Bytes of announcements."""
    progress_bytes: int = GIB // 16
    """Bytes of memory for the newest progress of running tasks."""
    progress_age: timedelta = timedelta(hours=1)
    """How long a task's last progress is kept."""
    config_bytes: int = -1
    """Bytes of schedules, triggers and leases; -1 for no limit: a full stream would drop its oldest documents."""
    topic_bytes: int = GIB
    """Bytes of durable topics; full, they refuse messages."""
    topic_age: timedelta = timedelta(days=7)
    """How long a topic's message is kept, read or not."""
    marker_ttl: timedelta = timedelta(seconds=60)
    """How long the mark of an expired announcement is kept, for watchers that were away."""


def configs(settings: StreamSettings) -> list[dict[str, Any]]:
    """The streams' settings, as JetStream's API takes them."""
    found = [
        _ledger(settings),
        _timers(),
        _registry(settings),
        _progress(settings),
        _config(settings),
        _topics(settings),
        _blobs(settings),
    ]
    for config in found:
        config["num_replicas"] = settings.replicas
    return found


def _ledger(settings: StreamSettings) -> dict[str, Any]:
    """Every transition of every task."""
    return {
        "name": "SG_LEDGER",
        "subjects": [subjects.LEDGER_SUBJECTS],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_bytes": settings.ledger_bytes,
        "allow_direct": True,
        "republish": {"src": subjects.LEDGER_SUBJECTS, "dest": f"{subjects.LIVE_PREFIX}>"},
        # Each of these would let a permitted publisher change history.
        "allow_rollup_hdrs": False,
        "allow_msg_ttl": False,
        "allow_msg_schedules": False,
        "allow_atomic": False,
    }


def _timers() -> dict[str, Any]:
    """Durable timers, and what became due."""
    return {
        "name": "SG_TIMERS",
        "subjects": [subjects.TIMER_SUBJECTS, subjects.DUE_SUBJECTS],
        "retention": "workqueue",
        "storage": "file",
        # Schedules forbid `discard: new` (measured), and `old` would drop timers of a full stream: so no max_bytes.
        "discard": "old",
        "max_bytes": -1,
        "allow_msg_schedules": True,
    }


def _registry(settings: StreamSettings) -> dict[str, Any]:
    """Live instances."""
    return {
        "name": "SG_REGISTRY",
        "subjects": [subjects.ANNOUNCE_SUBJECTS],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_msgs_per_subject": 1,
        "max_bytes": settings.registry_bytes,
        "allow_direct": True,
        "allow_msg_ttl": True,
        "subject_delete_marker_ttl": int(settings.marker_ttl.total_seconds()) * _SECOND,
    }


def _progress(settings: StreamSettings) -> dict[str, Any]:
    """The newest progress of running tasks, and how instances died lately."""
    return {
        "name": "SG_PROGRESS",
        "subjects": [subjects.PROGRESS_SUBJECTS, subjects.CRASH_SUBJECTS],
        "retention": "limits",
        "storage": "memory",
        "discard": "old",
        "max_msgs_per_subject": 1,
        "max_bytes": settings.progress_bytes,
        "max_age": int(settings.progress_age.total_seconds()) * _SECOND,
        "allow_direct": True,
    }


def _config(settings: StreamSettings) -> dict[str, Any]:
    """Schedules, triggers, leases: the newest document of each subject."""
    return {
        "name": "SG_CONFIG",
        "subjects": [subjects.CONFIG_SUBJECTS],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_msgs_per_subject": 1,
        "max_bytes": settings.config_bytes,
        "allow_direct": True,
        # The mark of a removal ends by itself, else the stream would grow with every name that ever was.
        "allow_msg_ttl": True,
        "duplicate_window": _DUPLICATES,
    }


def _topics(settings: StreamSettings) -> dict[str, Any]:
    """Messages of durable topics, for any number of consumers."""
    return {
        "name": "SG_TOPICS",
        "subjects": [subjects.TOPIC_SUBJECTS],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_bytes": settings.topic_bytes,
        "max_age": int(settings.topic_age.total_seconds()) * _SECOND,
        "allow_msg_ttl": True,
        "duplicate_window": _DUPLICATES,
    }


def _blobs(settings: StreamSettings) -> dict[str, Any]:
    """Payloads and artifacts, in the layout of an object store."""
    return {
        "name": "OBJ_SG_BLOBS",
        "subjects": ["$O.SG_BLOBS.C.>", "$O.SG_BLOBS.M.>"],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_bytes": settings.blob_bytes,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
    }


async def ensure_streams(asking: Asking, settings: StreamSettings) -> None:
    """Create or upgrade all streams. Raises ServerUnfit, Unavailable."""
    for config in configs(settings):
        await _ensure(asking, config)


async def _ensure(asking: Asking, config: dict[str, Any]) -> None:
    name = config["name"]
    existing = await _info(asking, name) or await _create(asking, config)
    if existing is None:
        return
    changed = _changes(existing, config)
    if not changed:
        return
    try:
        await asking.api(f"STREAM.UPDATE.{name}", {**existing, **changed})
    except ApiError as error:
        raise _unfit(name, error, ", ".join(sorted(changed))) from error


async def enlarge(asking: Asking, name: str, limit: int) -> None:
    """Set what a stream may hold, in bytes (0: no limit). Raises ServerUnfit (no room, no such stream), Unavailable."""
    existing = await _info(asking, name)
    if existing is None:
        raise ServerUnfit(
            f"there is no stream {name}", fix="start a coordinator; it creates the streams"
        )
    try:
        await asking.api(f"STREAM.UPDATE.{name}", {**existing, "max_bytes": limit or -1})
    except ApiError as error:
        raise _unfit(name, error, "max_bytes") from error


async def _create(asking: Asking, config: dict[str, Any]) -> dict[str, Any] | None:
    """Create the stream; None if that went well, else the settings of another replica that was faster."""
    name = config["name"]
    for pause in RETRIES:
        try:
            await asking.api(f"STREAM.CREATE.{name}", config)
        except ApiError as error:
            existing = await _info(asking, name)
            if existing is not None:
                return existing
            # Two creations of one stream at once reserve its room twice for a moment.
            if error.number not in _NO_STORAGE or pause is None:
                raise _unfit(name, error) from error
            await asyncio.sleep(pause)
        else:
            return None
    return None


async def _info(asking: Asking, name: str) -> dict[str, Any] | None:
    try:
        info = await asking.api(f"STREAM.INFO.{name}")
    except ApiError as error:
        if error.number == _NOT_FOUND:
            return None
        raise
    config: dict[str, Any] = info["config"]
    return config


def _changes(existing: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """What must change. Room is only ever raised: a coordinator raises it when the ledger runs full (rule 19)."""
    changed: dict[str, Any] = {}
    for field, wanted in config.items():
        # The API leaves out what is false.
        present = existing.get(field, False if isinstance(wanted, bool) else None)
        if field == "max_bytes" and (present == -1 or 0 < wanted <= present):
            continue
        if field == "num_replicas" and present > wanted:
            continue
        if present != wanted:
            changed[field] = wanted
    return changed


def _unfit(name: str, error: ApiError, fields: str = "") -> ServerUnfit | Unavailable:
    if error.number in _NO_STORAGE:
        return ServerUnfit(
            f"the broker has no room for the stream {name}",
            why=error.text,
            fix="raise max_file_store / max_memory_store in the server's configuration, or lower the streams' sizes",
        )
    what = f" ({fields})" if fields else ""
    return ServerUnfit(
        f"the stream {name} is set up otherwise{what} and cannot be changed",
        why=error.text,
        fix=f"export what it holds, delete the stream {name}, and start a coordinator: it creates it",
    )
