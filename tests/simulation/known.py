"""What is pure is worked out once for the same bytes, as a seed reads each entry ten times.

The real functions run, once for each entry; entries cannot be changed, so that whoever reads one may have the same.
"""

from __future__ import annotations

from functools import lru_cache

from switchgear.contract import codec, subjects
from switchgear.coordinator import reading
from switchgear.lifecycle import history, holding
from tests.programs import invariants

_ENTRIES = 2048
"""More than a seed has."""


def remember() -> None:
    """Let readers share what they decode, in this process."""
    expectation = lru_cache(_ENTRIES)(history.expectation)
    for reader in (history, holding, reading, invariants):
        vars(reader)["expectation"] = expectation
    codec.decode_entry = lru_cache(_ENTRIES)(codec.decode_entry)
    subjects.parse_task = lru_cache(_ENTRIES)(subjects.parse_task)
