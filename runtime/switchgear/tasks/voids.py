"""Void entries are security events: whoever folds a history says which ones it skipped."""

from __future__ import annotations

import logging

from switchgear.lifecycle.history import History

log = logging.getLogger(__name__)


def log_voids(history: History) -> None:
    """One line for each entry of the history that counts for nothing."""
    for stored, reason in history.voids:
        log.warning("ledger.void-entry %s at %d: %s", stored.subject, stored.sequence, reason)
