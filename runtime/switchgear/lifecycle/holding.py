"""What an agent does with a delivery, and with a refused append: pure decisions on the holder's side.

Delivery 1 proves nothing, a broker's ack is no fence, and whoever lost the task to another touches the
delivery no more (rules 4, 6, 8 and 9).
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import NamedTuple

from switchgear.contract import limits
from switchgear.contract.stored import Stored, expectation
from switchgear.lifecycle.history import History


class Fresh(Enum):
    """What a delivery looks like before anything is read."""

    RUN = "run"
    """Delivered first, just stored, well formed: nobody else can have it."""
    READ = "read"
    """Read the tail first."""


def receive(stored: Stored, scope: str, deliveries: int, now: datetime) -> Fresh:
    """Whether the usual path holds: delivery 1, own headers stand, stored within 1 s of the agent's clock."""
    age = abs(now.timestamp() - stored.time_ns / 1e9)
    fresh = age <= limits.CLOCK_TOLERANCE.total_seconds()
    if deliveries == 1 and fresh and expectation(stored.headers, scope) is not None:
        return Fresh.RUN
    return Fresh.READ


class Begin(NamedTuple):
    """How to begin on a delivery after reading the history."""

    act: str
    """`run`: as the first holder; `go-on`: this instance runs it already; `take-over`: append taken-over
    first; `ack`: it is not live, drop it."""
    former: str = ""
    loose: bool = False
    """The former holder handed it back."""


def begin(
    history: History, sequence: int, instance: str, deliveries: int, *, running: bool
) -> Begin:
    """What to do with the delivery of the `dispatched` at this sequence (rule 8).

    `running`: whether this process runs the task now.
    """
    if history.live_dispatch != sequence:
        return Begin("ack")
    if running and history.holder in (None, instance) and history.position == "held":
        return Begin("go-on")
    if deliveries == 1 and history.holder is None:
        return Begin("run")
    return Begin("take-over", history.holder or "", history.position == "loose")


class After(NamedTuple):
    """What a refused append means."""

    act: str
    """`landed`: it had been stored; `again`: append anew, expecting `expect`; `cancelled`: the task is being
    cancelled, end it so; `lost`: another holds it or it ended, stop and touch the delivery no more."""
    expect: int = 0
    reason: str = ""


def after_refusal(history: History, entry_id: str, hold: int, instance: str) -> After:
    """What an agent does whose append was refused, after reading what was stored since (rule 2)."""
    landed = history.landed(entry_id)
    if landed:
        # another may have taken over since: whoever expects no more than its own entry cannot write after it
        ours = history.hold == hold and history.holder == instance and not history.ended
        ours = ours and history.cancelling is None
        return After("landed", history.last if ours else landed)
    if history.ended or history.remnant:
        return After("lost", reason=f"the task has ended as {history.ended}")
    if history.hold != hold or history.holder not in (None, instance):
        return After("lost", reason=f"{history.holder or 'another instance'} holds the task now")
    if history.position != "held":
        return After("lost", reason=f"the task is {history.state}")
    if history.cancelling is not None:
        return After("cancelled", history.last, history.cancelling.reason)
    return After("again", history.last)
