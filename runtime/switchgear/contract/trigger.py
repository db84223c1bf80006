"""What starts tasks of a capability by itself, as its newest announced version declares it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from switchgear.contract.announcement import CronTrigger, TopicTrigger
from switchgear.contract.values import Time, Token


class Trigger(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The triggers of one capability, kept under `sg.config.trigger.<capability>` while no instance lives."""

    capability: Token
    agent: Token
    """The agent that declares them: the owner of the tasks that they start."""
    version: str
    """Of that agent."""
    started: Time
    """When the instance started that declared them: of one version the newest declaration holds."""
    crons: tuple[CronTrigger, ...] = ()
    topics: tuple[TopicTrigger, ...] = ()
    v: Literal[1] = 1

    @property
    def is_empty(self) -> bool:
        """Whether nothing is declared (any more)."""
        return not self.crons and not self.topics
