"""What a process that died leaves behind: how it ended, and the end of its error output."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from switchgear.contract.values import Text, Time, Token


class CrashReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Published after an instance's death by the process that watched it; the broker keeps it for an hour."""

    agent: Token
    instance: Token
    time: Time
    ended: Text
    """How it ended, such as `was ended by SIGSEGV`."""
    last_words: Text = ""
    """The end of its error output."""
    v: Literal[1] = 1
