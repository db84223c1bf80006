"""Asking a coordinator or the read model: one core request, its answer or the error that it stands for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypeVar

from switchgear.bus.port import Core
from switchgear.contract import codec, queries, subjects
from switchgear.errors import (
    Conflict,
    Forbidden,
    NotFound,
    Overloaded,
    ProtocolError,
    RolloutRefused,
    SwitchgearError,
    Unavailable,
    UsageError,
)

T = TypeVar("T")

PATIENCE = timedelta(seconds=5)
MAX_ANSWER = 16 << 20
"""Bytes; the broker's own `max_payload` is usually lower."""
_KINDS: dict[str, type[SwitchgearError]] = {
    kind.code: kind
    for kind in (
        Conflict,
        Forbidden,
        NotFound,
        Overloaded,
        RolloutRefused,
        Unavailable,
        UsageError,
    )
}
"""Errors that services answer with, as their askers meet them."""


async def ask(
    core: Core,
    verb: str,
    principal: str,
    query: Any,
    answer: type[T],
    *,
    timeout: timedelta = PATIENCE,
) -> T:
    """The service's answer. Raises the error that it gave instead, or Unavailable."""
    subject = subjects.api(verb, principal)
    data = await core.request(subject, codec.encode(query), timeout=timeout)
    try:
        return codec.decode(data, answer, limit=MAX_ANSWER)
    except ProtocolError as unfit:
        try:
            problem = codec.decode(data, queries.Problem)
        except ProtocolError:
            raise unfit from None
    raise error_of(problem)


def error_of(problem: queries.Problem) -> SwitchgearError:
    """The error that a service, or an agent, answers with."""
    error = _KINDS.get(problem.code, SwitchgearError)(
        problem.what, why=problem.why, fix=problem.fix
    )
    error.code = problem.code
    if isinstance(error, Overloaded | Unavailable):
        error.retry_after = problem.retry_after
    return error
