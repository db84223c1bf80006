"""Which pool runs a task: version range, labels, health and capacity of the instances behind each pool."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from switchgear.contract import limits
from switchgear.contract.announcement import Offer
from switchgear.contract.values import Candidate, Route

MAX_VERSION = 256
"""Characters of a version or a range: longer ones cost time, and numbers of 4,300 digits raise."""
_MAX_REFUSAL = 1024


class Pool(NamedTuple):
    """Interchangeable instances that offer a capability."""

    offer: Offer
    agent: str
    labels: dict[str, str]
    instances: int
    """Live instances that accept work."""
    draining: int
    slots: int
    """Concurrency of all accepting instances."""
    free: int
    """Free slots, as last announced."""


class Wanted(NamedTuple):
    """What a submission asks of its agent."""

    task: str
    version: str
    labels: dict[str, str]


class Chosen(NamedTuple):
    """The pool that runs it, and the decision for the ledger."""

    pool: Pool
    route: Route


@lru_cache(maxsize=1024)
def version_range(text: str) -> SpecifierSet:
    """The range: `*` for any, `1.2` for 1.2 and its patches, else a PEP 440 specifier. Raises ValueError."""
    if len(text) > MAX_VERSION:
        raise ValueError(f"{text[:40]!r}… is longer than {MAX_VERSION} characters")
    spec = text.strip()
    if spec in ("", "*"):
        return SpecifierSet()
    if spec[0].isdigit():
        is_whole = len(spec.split(".")) >= len(("major", "minor", "patch"))
        spec = f"=={spec}" if is_whole else f"=={spec}.*"
    try:
        return SpecifierSet(spec)
    except InvalidSpecifier:
        raise ValueError(f"{text!r} is not a version range") from None


@lru_cache(maxsize=1024)
def version(text: str) -> Version:
    """A version that can be compared; one that cannot be read counts as 0."""
    try:
        return Version(text if len(text) <= MAX_VERSION else "")
    except InvalidVersion:
        return Version("0")


@lru_cache(maxsize=4096)
def _in_range(wanted: str, offered: str) -> bool:
    return version_range(wanted).contains(version(offered), prereleases=True)


def choose(pools: Sequence[Pool], wanted: Wanted) -> Chosen | Route:
    """The pool that shall run the task, or (a bare Route) why nobody can.

    Of the pools that fit, the newest version wins; among pools of that version tasks are spread by their slots
    (weighted rendezvous hashing on the task's id), so that every replica decides alike.
    """
    refusals = [(pool, _refusal(pool, wanted)) for pool in pools]
    fitting = [pool for pool, refused in refusals if not refused]
    if not fitting:
        return Route(reason=_nobody(refusals), candidates=_candidates(refusals, None))
    pool, reason = fitting[0], "the only pool that fits"
    if len(fitting) > 1:
        pool, reason = _best(fitting, wanted.task)
    return Chosen(pool, Route(reason=reason, candidates=_candidates(refusals, pool)))


def _best(fitting: list[Pool], task: str) -> tuple[Pool, str]:
    newest = max(version(pool.offer.version) for pool in fitting)
    best = [pool for pool in fitting if version(pool.offer.version) == newest]
    if len(best) == 1:
        return best[0], f"newest of {len(fitting)} pools that fit"
    pool = max(best, key=lambda one: (_share(one, task), one.offer.pool))
    return pool, f"one of {len(best)} pools of version {newest}, by share of slots"


def _refusal(pool: Pool, wanted: Wanted) -> str:
    if not _in_range(wanted.version, pool.offer.version):
        return f"version {pool.offer.version} is not {wanted.version}"
    for name, value in wanted.labels.items():
        if pool.labels.get(name) != value:
            return f"label {name} is {pool.labels.get(name, 'missing')}, not {value}"
    if not pool.instances:
        return "all its instances drain" if pool.draining else "no instance is alive"
    return ""


def _nobody(refusals: list[tuple[Pool, str]]) -> str:
    if not refusals:
        return "nobody offers this capability"
    first = "; ".join(
        f"{pool.agent} {pool.offer.version[:MAX_VERSION]}: {why[:_MAX_REFUSAL]}"
        for pool, why in refusals[:3]
    )
    return f"no pool fits: {first}"


def _candidates(refusals: list[tuple[Pool, str]], chosen: Pool | None) -> tuple[Candidate, ...]:
    ordered = refusals
    if len(refusals) > 1:
        ordered = sorted(refusals, key=lambda one: one[0] is not chosen)
    return tuple(
        Candidate(
            pool=pool.offer.pool,
            version=pool.offer.version[:MAX_VERSION],
            instances=pool.instances,
            free=pool.free,
            refused=refused[:_MAX_REFUSAL] or ("" if pool is chosen else "another pool was better"),
        )
        for pool, refused in ordered[: limits.MAX_CANDIDATES]
    )


def _share(pool: Pool, task: str) -> float:
    """Rendezvous score: pools win in proportion to their slots (Schindelhauer and Schomaker, 2005)."""
    hashed = hashlib.blake2b(f"{pool.offer.pool}/{task}".encode(), digest_size=8).digest()
    drawn = (int.from_bytes(hashed, "big") + 1) / (2**64 + 1)
    return -max(pool.slots, 1) / math.log(drawn)
