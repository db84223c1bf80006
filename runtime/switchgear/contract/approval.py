"""The answer to a question: what an approval signal carries."""

from __future__ import annotations

from msgspec import Struct


class Approval(Struct, frozen=True):
    """Whether it is approved, and what the approver says. Screens offer approve and deny for a wait of this type."""

    approved: bool
    note: str = ""
