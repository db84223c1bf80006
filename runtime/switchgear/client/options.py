"""The options of a submission: as they are given, and as the ledger keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TypedDict

from switchgear.contract.values import Retry, State
from switchgear.errors import UsageError
from switchgear.tasks import submission


class SubmitOptions(TypedDict, total=False):
    """What `submit` takes by keyword."""

    key: str | None
    """Makes the submission happen once: the same key, input and options give the same task."""
    priority: str
    """high, normal or low."""
    deadline: datetime | timedelta | None
    """When the task must have ended: a moment, or from now."""
    start: datetime | timedelta | None
    """Not before this: a moment, or from now."""
    labels: Mapping[str, str] | None
    """Those that the agent must have."""
    retry: Retry | None
    """Instead of the capability's policy."""
    require_agent: bool
    """Reject the task at once when nobody offers the capability."""
    live: bool
    """Hear the task's chunks from its beginning: `TaskHandle.chunks` misses none."""


class ListFilters(TypedDict, total=False):
    """What `list` takes: all that are given hold of each task that is listed."""

    capability: str | None
    state: State | None
    open_only: bool
    root: str | None
    """Of one run."""
    parent: str | None
    """Children of one task."""
    fingerprint: str | None
    """Failed of one cause."""
    redrives: str | None
    """Further tries of one dead task."""
    search: str
    """Part of a task's id, capability or error."""
    limit: int
    """1 to 1000; 50 where it is left out."""
    before: str | None
    """The last id of the page before."""


def kept(given: SubmitOptions, now: datetime, *, version: str = "*") -> submission.Options:
    """The options as a submission carries them; `version`: the range that the caller accepts. Raises UsageError."""
    deadline, deadline_in = _moment("deadline", given.get("deadline"), now)
    start, start_in = _moment("start", given.get("start"), now)
    return submission.Options(
        version=version,
        priority=given.get("priority", "normal"),
        deadline=deadline,
        deadline_in=deadline_in,
        labels=dict(given.get("labels") or {}),
        retry=given.get("retry"),
        require_agent=given.get("require_agent", False),
        start=start,
        start_in=start_in,
    )


def _moment(
    name: str, asked: datetime | timedelta | None, now: datetime
) -> tuple[datetime | None, timedelta | None]:
    """A moment, and the time from now as which it was asked for. Raises UsageError."""
    if isinstance(asked, timedelta):
        try:
            return now + asked, asked
        except OverflowError:
            raise UsageError(f"the {name} {asked} from now is beyond the calendar") from None
    if asked is not None and asked.tzinfo is None:
        raise UsageError(
            f"the {name} {asked} has no time zone",
            fix="give a timedelta, or a datetime with tzinfo, such as datetime.now(UTC)",
        )
    return asked, None
