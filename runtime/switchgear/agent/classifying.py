"""From exceptions to failures for one agent: its own classifiers first, then the tables."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from switchgear.clock import Clock
from switchgear.contract.values import ErrorClass, Failure
from switchgear.resilience.classes import CLASSES, Verdict
from switchgear.resilience.classify import Own, classify

log = logging.getLogger(__name__)

_ENGINE = ("dagger.", "gql.")
"""Packages of the Dagger SDK's exceptions: `dagger._exceptions` and what it is built on."""


class Judge(Protocol):
    """What says what an exception means: `resilience.classify.classify`, or an agent's `Classifier`."""

    def __call__(self, error: BaseException, *, step: str | None = None) -> Failure:
        """The failure that the exception is; `step`: the key of the step that raised it."""
        ...


class Classifier:
    """The `Judge` of one agent."""

    def __init__(self, own: Sequence[Own], clock: Clock) -> None:
        """`own`: what `agent.classify` declared, tried in order; `clock` dates what servers ask to wait."""
        self._own = own
        self._clock = clock

    def __call__(self, error: BaseException, *, step: str | None = None) -> Failure:
        """See `Judge`."""
        own = self._first if self._own else None
        known = _of_an_engine(error) if type(error).__module__.startswith(_ENGINE) else None
        return classify(error, step=step, own=own, known=known, now=self._clock.now())

    def _first(self, error: BaseException) -> ErrorClass | None:
        """The first class that an own classifier names. One that fails is as one that does not know."""
        for one in self._own:
            found = _asked(one, error)
            if found is not None:
                return found
        return None


def _of_an_engine(error: BaseException) -> Verdict:
    """What an exception of the Dagger SDK means that a handler let pass, from its own use of an engine."""
    from switchgear.resilience.dagger_failures import dagger_finding
    from switchgear.steps.executors.dagger.errors import facts

    return dagger_finding(facts(error)).verdict


def _asked(
    one: Callable[[BaseException], ErrorClass | None], error: BaseException
) -> ErrorClass | None:
    name = getattr(one, "__qualname__", repr(one))
    try:
        found = one(error)
    except Exception:
        log.exception("classifier.failed %s", name)
        return None
    if found is None or found in CLASSES:
        return found
    log.error("classifier.unknown-class %s: %r", name, found)
    return None
