"""The server's sync interval, read from its monitoring page: no other interface of the server tells it."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

UNKNOWN: Final = "unknown"
_PATIENCE: Final = 2.0


class _Config(msgspec.Struct):
    sync_always: bool = False
    sync_interval: int = 0
    """Nanoseconds."""


class _JetStream(msgspec.Struct):
    config: _Config = msgspec.field(default_factory=_Config)


class _Page(msgspec.Struct):
    """What is used of /varz."""

    server_id: str = ""
    jetstream: _JetStream = msgspec.field(default_factory=_JetStream)


async def sync_interval(monitoring_url: str, server_id: str) -> str:
    """`always`, an interval such as `2m0s`, or `unknown`: no URL, no answer, or another server's answer."""
    if not monitoring_url.startswith(("http://", "https://")):
        return UNKNOWN
    try:
        page = await asyncio.to_thread(_read, f"{monitoring_url.rstrip('/')}/varz")
    except (OSError, ValueError):  # also msgspec's errors
        return UNKNOWN
    if page.server_id != server_id:
        return UNKNOWN
    if page.jetstream.config.sync_always:
        return "always"
    interval = page.jetstream.config.sync_interval
    return go_duration(interval) if interval else UNKNOWN


def go_duration(nanoseconds: int) -> str:
    """A duration as the server's configuration writes it, such as `2m0s`."""
    minutes, rest = divmod(nanoseconds, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest / 1e9:g}s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def _read(url: str) -> _Page:
    # Imported here: an HTTP client is a large import, and few ask for this.
    import urllib.request

    with urllib.request.urlopen(url, timeout=_PATIENCE) as answer:  # noqa: S310 - http(s) only, checked above
        return msgspec.json.decode(answer.read(), type=_Page)
