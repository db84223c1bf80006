"""From an error to what is recorded of it, and back to the same kind of error in a later run. Pure."""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

import msgspec

from switchgear.contract import codec
from switchgear.contract.codes import PROTOCOL_CODES
from switchgear.contract.values import Failure
from switchgear.errors import ProtocolError, StepFailed, SwitchgearError, all_errors

_FAILURE_HAS = frozenset({"what", "why", "fix"})
_KIND = "kind"


def details(error: SwitchgearError) -> bytes:
    """What the error carries beside its failure, as a JSON object; what is no JSON is left out."""
    found: dict[str, Any] = {_KIND: _name(type(error))}
    for name, value in vars(error).items():
        if name in _FAILURE_HAS or name.startswith("_"):
            continue
        try:
            found[name] = msgspec.Raw(codec.encode(value))
        except (TypeError, ValueError, RecursionError):
            continue
    return codec.encode(found)


def error_of(failure: Failure, recorded: bytes) -> SwitchgearError:
    """The error that was recorded: of the same class where this process knows it, else of the code's.

    `recorded` is what `details` gave, or `null` from a writer that gives none.
    """
    carried: dict[str, Any] = {}
    with contextlib.suppress(msgspec.MsgspecError):
        carried = msgspec.json.decode(recorded, type=dict[str, Any])
    kind = _kind(str(carried.pop(_KIND, "")), failure.code)
    error = kind.__new__(kind, failure.message)
    error.what, error.why, error.fix = failure.message, failure.why, failure.fix
    if failure.code != kind.code:
        error.code = failure.code
    for name, value in {**_expected(kind, failure), **carried}.items():
        setattr(error, name, value)
    return error


def _kind(name: str, code: str) -> type[SwitchgearError]:
    errors = all_errors()
    for kind in errors:
        if name and _name(kind) == name:
            return kind
    if code in PROTOCOL_CODES:
        return ProtocolError
    named = (kind for kind in errors if kind.code == code and kind.__module__ == _OURS)
    return next(named, StepFailed)


def _expected(kind: type[SwitchgearError], failure: Failure) -> dict[str, Any]:
    """Every attribute that this class of error promises, as far as the failure tells."""
    told: dict[str, Any] = {
        "key": failure.step or "",
        "step": failure.step,
        "error_class": failure.error_class,
        "retry_after": failure.retry_after,
        "path": failure.path,
        "cause_code": failure.code,
        "stderr": failure.last_words,
        "outcome_known": failure.outcome_known,
        "idempotent": failure.retryable and not failure.outcome_known,
        "dependency": failure.dependency,
    }
    parameters = inspect.signature(kind.__init__).parameters.values()
    return {
        one.name: told.get(one.name, "" if one.default is inspect.Parameter.empty else one.default)
        for one in parameters
        if one.kind is inspect.Parameter.KEYWORD_ONLY and one.name not in (*_FAILURE_HAS, "code")
    }


def _name(kind: type[SwitchgearError]) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


_OURS = SwitchgearError.__module__
