"""What a coordinator may be told: how much it admits, and how long the ledger keeps what has ended."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Literal, TypeVar, get_args, get_origin

import msgspec

from switchgear.contract import limits, subjects
from switchgear.coordinator.archive import Format
from switchgear.errors import ConfigError

T = TypeVar("T")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class CoordinatorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """All replicas should be given the same. The names in brackets are environment variables."""

    backlog_limit: int = 100_000
    """Submissions of one owner for one capability that may wait to be dispatched; more are rejected with SG1210
    [SWITCHGEAR_BACKLOG_LIMIT]."""
    owner_rate: float | None = None
    """Submissions a second that one replica takes from one owner, in bursts of up to a second's worth; more are
    rejected with SG1211. None: any number [SWITCHGEAR_OWNER_RATE]."""
    ledger_hard_limit: int | None = None
    """Bytes up to which the ledger is let grow when it is full, so that running tasks can end; None: 5 % beyond its
    limit [SWITCHGEAR_LEDGER_HARD_LIMIT]."""
    lease: timedelta = limits.LANE_ACK_WAIT
    """How long an instance that has gone silent keeps what it runs; instances hear of it when they ask for their lanes
    [SWITCHGEAR_LEASE, such as 30s]."""
    retention_age: timedelta = timedelta(days=7)
    """How long the ledger keeps a task that has ended [SWITCHGEAR_RETENTION_AGE, such as 7d or 12h]."""
    retention_count: int = 500_000
    """How many tasks that have ended it keeps at most [SWITCHGEAR_RETENTION_COUNT]."""
    archive: Path | None = None
    """Folder that gets what is deleted, before it is deleted; None: nothing is archived [SWITCHGEAR_ARCHIVE]."""
    archive_format: Format = "jsonl"
    """JSON lines, or Parquet, which needs the extra `parquet` [SWITCHGEAR_ARCHIVE_FORMAT]."""

    groups: dict[str, frozenset[str]] = {}
    """Principals by group, for signals that only a group may send [SWITCHGEAR_GROUPS, such as
    approvers=alice,bob;ops=carol]."""
    sweep_every: timedelta = timedelta(seconds=30)
    """Between two looks at old tasks, whether something will move them [SWITCHGEAR_SWEEP_EVERY, such as 30s]."""

    def __post_init__(self) -> None:
        """Raise ConfigError for what cannot be kept to."""
        _positive("backlog_limit", self.backlog_limit)
        _positive("retention_count", self.retention_count)
        _positive("retention_age", self.retention_age.total_seconds())
        _positive("sweep_every", self.sweep_every.total_seconds())
        _positive("lease", self.lease.total_seconds())
        if self.owner_rate is not None:
            _positive("owner_rate", self.owner_rate)
        if self.ledger_hard_limit is not None:
            _positive("ledger_hard_limit", self.ledger_hard_limit)

    @classmethod
    def load(cls, environment: Mapping[str, str], **given: object) -> CoordinatorSettings:
        """What is given and not None, over the environment, over the defaults. Raises ConfigError."""
        values: dict[str, object] = {}
        for field in msgspec.structs.fields(cls):
            name = f"SWITCHGEAR_{field.name.upper()}"
            text = environment.get(name)
            if given.get(field.name) is not None:
                values[field.name] = given[field.name]
            elif text:
                values[field.name] = _read(name, text, field.type)
        try:
            return msgspec.convert(values, cls, dec_hook=_path)
        except msgspec.ValidationError as error:
            raise ConfigError(f"the coordinator's settings cannot be used: {error}") from error


def _read(name: str, text: str, kind: object) -> object:
    if kind is timedelta:
        return age(name, text)
    if kind == dict[str, frozenset[str]]:
        return _groups(name, text)
    if get_origin(kind) is Literal and text not in get_args(kind):
        raise ConfigError(f"{name}={text!r} is none of {', '.join(get_args(kind))}")
    for number in (int, float):
        if kind == number or kind == number | None:
            try:
                return number(text)
            except ValueError:
                raise ConfigError(f"{name}={text!r} is not a number") from None
    return text


def _groups(name: str, text: str) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        group, equals, members = (one.strip() for one in part.partition("="))
        principals = frozenset(one.strip() for one in members.split(",") if one.strip())
        if not equals or not all(map(subjects.is_token, (group, *principals))):
            raise ConfigError(
                f"{name} has {part!r}", fix="write it like approvers=alice,bob;ops=carol"
            )
        found[group] = principals
    return found


def age(name: str, text: str) -> timedelta:
    """A time such as 90s, 30m, 12h or 7d. Raises ConfigError."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])", text.strip())
    if match is None:
        raise ConfigError(f"{name}={text!r} is not a time", fix="write it like 90s, 30m, 12h or 7d")
    number, unit = match.groups()
    return timedelta(seconds=float(number) * _UNITS[unit])


def _path(kind: type, value: object) -> object:
    return Path(value) if kind is Path and isinstance(value, str) else value


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ConfigError(f"{name} is {value}", why="it must be more than 0")
