"""Consumers as the server keeps them: which stream each reads, created, brought up to date, looked at."""

from __future__ import annotations

from typing import Any, Final

from switchgear.bus import port
from switchgear.bus.asking import ApiError
from switchgear.bus.pulling import MISSING, Link
from switchgear.errors import ServerUnfit

LEDGER: Final = "SG_LEDGER"
TIMERS: Final = "SG_TIMERS"
TOPICS: Final = "SG_TOPICS"
STREAMS: Final[dict[port.Source, str]] = {"ledger": LEDGER, "timers": TIMERS, "topics": TOPICS}

_BEGINNING: Final = ("deliver_policy", "opt_start_seq")


async def ensure_consumer(link: Link, stream: str, config: dict[str, Any]) -> dict[str, Any]:
    """Create the consumer, or update it where its settings differ; from several replicas at once. Returns its info.

    Raises ServerUnfit, Unavailable.
    """
    try:
        return await _create(link, stream, config)
    except ApiError as error:
        raise _unfit(stream, config, error) from error


async def ensure_durable(link: Link, stream: str, config: dict[str, Any]) -> None:
    """As `ensure_consumer`; one that is there keeps its beginning, which cannot be changed."""
    try:
        await _create(link, stream, config)
    except ApiError as error:
        info = await consumer_info(link, stream, config["name"])
        present: dict[str, Any] = {} if info is None else info["config"]
        kept = {name: present[name] for name in _BEGINNING if name in present}
        rest = {name: value for name, value in config.items() if name not in _BEGINNING}
        if not present or {**rest, **kept} == config:
            raise _unfit(stream, config, error) from error
        await ensure_consumer(link, stream, {**rest, **kept})


async def consumer_info(link: Link, stream: str, name: str) -> dict[str, Any] | None:
    """What the broker tells of a consumer; None where there is none. Raises Unavailable."""
    try:
        return await link.asking.api(f"CONSUMER.INFO.{stream}.{name}")
    except ApiError as error:
        if error.number in MISSING:
            return None
        raise


async def _create(link: Link, stream: str, config: dict[str, Any]) -> dict[str, Any]:
    subject = f"CONSUMER.CREATE.{stream}.{config['name']}"
    if "filter_subject" in config:
        # With the filter in the subject, permissions can confine who creates what.
        subject = f"{subject}.{config['filter_subject']}"
    return await link.asking.api(subject, {"stream_name": stream, "config": config})


def _unfit(stream: str, config: dict[str, Any], error: ApiError) -> ServerUnfit:
    return ServerUnfit(
        f"the consumer {config['name']} on {stream} cannot be created",
        why=error.text,
        fix="create the streams first (a coordinator does), or delete the consumer of that name",
    )
