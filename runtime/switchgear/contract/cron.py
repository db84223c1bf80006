"""Recurring triggers: a cron expression, its time zone, and what becomes of times that were missed."""

from __future__ import annotations

from typing import Any, Literal, get_args

from msgspec import Raw

from switchgear.contract import codec
from switchgear.contract.announcement import CronTrigger
from switchgear.errors import UsageError

Missed = Literal["latest", "all", "skip"]
Overlap = Literal["skip", "queue", "cancel"]


class Cron:
    """Starts one task at each time that the expression names.

    `expression`: minute, hour, day of month, month, day of week, as cron(8) reads them. `missed`: what becomes of
    the times at which no coordinator ran. `overlap`: of a time at which the task before is still open. A fixed
    hour that is skipped for summer time runs right after it, one that comes twice runs once; where the hour is
    `*`, times follow the clock. Raises UsageError for another `missed` or `overlap`; whether there are such times
    is said by the coordinators, which alone read expressions.
    """

    __slots__ = ("expression", "input", "missed", "overlap", "timezone")

    def __init__(
        self,
        expression: str,
        input: Any = None,
        *,
        timezone: str = "UTC",
        missed: Missed = "latest",
        overlap: Overlap = "skip",
    ) -> None:
        _check("missed", missed, Missed)
        _check("overlap", overlap, Overlap)
        self.expression = expression
        self.input = input
        self.timezone = timezone
        self.missed: Missed = missed
        self.overlap: Overlap = overlap

    def trigger(self) -> CronTrigger:
        """What is announced and kept. Raises UsageError for an input that is no JSON."""
        try:
            data = codec.canonical(self.input)
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"the input of {self!r} cannot be written as JSON: {error}") from error
        return CronTrigger(
            expression=self.expression,
            input=Raw(data),
            timezone=self.timezone,
            missed=self.missed,
            overlap=self.overlap,
        )

    def __repr__(self) -> str:
        return f"Cron({self.expression!r}, timezone={self.timezone!r})"


def _check(name: str, given: str, known: Any) -> None:
    """An announcement with another word would be read by nobody."""
    words = get_args(known)
    if given not in words:
        raise UsageError(f"{given!r} is no `{name}` of a Cron", fix=f"use {', '.join(words)}")
