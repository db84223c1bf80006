"""Searches a tree's tracked text files by several processes; runs in a process of `secret-scan`.

`search` is the only function that knows detect-secrets (docs/adr/0004-detect-secrets.md).
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from contextlib import chdir
from importlib.metadata import version
from pathlib import Path

import msgspec

from switchgear_agents.repository import ScanReport, SecretFinding
from switchgear_agents.tree import opened, readable, tracked

FIRST = 50
_MANY = 16
"""Files below which another process costs more than it saves."""
_BASELINE = ".secrets.baseline"


class Suspect(msgspec.Struct, frozen=True):
    """A place that looks like a secret."""

    path: str
    line: int
    kind: str
    digest: str
    """SHA-1 of the secret, as baselines hold it."""


class _Known(msgspec.Struct):
    hashed_secret: str


class _Baseline(msgspec.Struct):
    """A baseline of detect-secrets, as far as it is needed."""

    results: dict[str, list[_Known]] = msgspec.field(default_factory=dict[str, list[_Known]])


def scan(path: str) -> ScanReport:
    """Search the tree; raises `Refused` for something that is no tree."""
    with opened(path) as tree:
        return _scan(tree)


def _scan(path: str) -> ScanReport:
    files, skipped = readable(path, tracked(path))
    files = [file for file in files if file != _BASELINE]
    with chdir(path):
        found = set(_search_all(files))
    known = _known(path)
    fresh = {suspect for suspect in found if (suspect.path, suspect.digest) not in known}
    places = sorted(
        {SecretFinding(suspect.path, suspect.line, suspect.kind) for suspect in fresh},
        key=lambda place: (place.path, place.line, place.kind),
    )
    return ScanReport(
        tool=f"detect-secrets {version('detect-secrets')}",
        files=len(files),
        skipped=skipped,
        findings=len(places),
        known=len(found) - len(fresh),
        first=places[:FIRST],
    )


def search(file: str) -> list[Suspect]:
    """What looks like a secret in one file, offline: no candidate is tried against its service."""
    from detect_secrets.core.scan import scan_file
    from detect_secrets.settings import default_settings

    # The default settings hold no verification filter, which is what would use the network.
    with default_settings():
        return [
            Suspect(file, secret.line_number, secret.type, secret.secret_hash)
            for secret in scan_file(file)
        ]


def _search_all(files: list[str]) -> list[Suspect]:
    """All files, by as many processes as there are processors to use and work for."""
    processors = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    workers = min(processors, 8, len(files) // _MANY)
    if workers <= 1:
        return [suspect for file in files for suspect in search(file)]
    # As a program this has one thread: fork is safe, and cheaper than to import all again.
    start = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    # Largest first: else one process may sit on a large file at the end while the others are done.
    files = sorted(files, key=os.path.getsize, reverse=True)
    with start.Pool(workers) as pool:
        results = pool.map(search, files, chunksize=2)
    return [suspect for result in results for suspect in result]


def _known(path: str) -> set[tuple[str, str]]:
    """File and digest of what the tree's own baseline lists; empty where none can be read."""
    try:
        baseline = msgspec.json.decode((Path(path) / _BASELINE).read_bytes(), type=_Baseline)
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError):
        return set()
    return {
        (file, known.hashed_secret) for file, listed in baseline.results.items() for known in listed
    }
