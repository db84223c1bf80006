"""Publishes the crash report of an instance that died, over a connection of its own."""

from __future__ import annotations

import asyncio
import signal

from switchgear.bus.connection import connect
from switchgear.clock import SYSTEM
from switchgear.contract import codec, limits, subjects
from switchgear.contract.crash_report import CrashReport


def publish(
    url: str, agent: str, instance: str, code: int, last_words: str, *, seconds: float
) -> None:
    """Leave the report at the broker; gives up after `seconds`. `code` is negative for a signal.

    Raises TimeoutError, SwitchgearError.
    """
    report = CrashReport(
        agent=agent,
        instance=instance,
        time=SYSTEM.now(),
        ended=how(code),
        last_words=last_words[-limits.MAX_TEXT :],
    )
    asyncio.run(asyncio.wait_for(_send(url, report), seconds))


async def _send(url: str, report: CrashReport) -> None:
    bus = await connect(url, name=report.agent, principal=report.agent)
    try:
        bus.core.publish(subjects.crash(report.agent, report.instance), codec.encode(report))
    finally:
        await bus.close()


def how(code: int) -> str:
    """How a process with this exit code ended, for people."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
