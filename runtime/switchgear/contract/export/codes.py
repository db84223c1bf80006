"""Tables beside the schemas: every error code, and every limit of the protocol."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec

from switchgear import errors
from switchgear.contract import codes, limits
from switchgear.contract.export import docstrings

ERRORS_TEXT = (
    "Every code that can stand in a ledger entry, an answer or an exception. `disposition` says "
    "what a caller may do: final (the same call fails again), retry (it may pass later), unknown "
    "(it may have taken effect), policy (the error class and the task's retry policy decide)."
)
LIMITS_TEXT = "Sizes, counts and times that readers and writers keep to. Durations are ISO 8601."


def error_table() -> dict[str, Any]:
    """errors.json: code -> kind, meaning, fix, disposition."""
    found = {
        kind.code: _row(
            "error",
            " ".join((kind.__doc__ or "").split()),
            kind.default_fix,
            kind.disposition,
            name=kind.__name__,
        )
        for kind in errors.all_errors()
        if kind.__module__ == errors.__name__
    }
    protocol = errors.ProtocolError
    for code, meaning in codes.PROTOCOL_CODES.items():
        found[code] = _row("protocol", meaning, protocol.default_fix, protocol.disposition)
    for code, (meaning, fix) in codes.REJECTIONS.items():
        found[code] = _row("rejection", meaning, fix, "final")
    for code, (meaning, fix) in codes.FAILURES.items():
        found[code] = _row("failure", meaning, fix, "policy")
    for code, meaning in codes.PIPELINE_CODES.items():
        fix = "`switchgear pipeline check FILE` lists what is wrong"
        found[code] = _row("pipeline", meaning, fix, "final")
    return {"description": ERRORS_TEXT, "codes": dict(sorted(found.items()))}


def limit_table() -> dict[str, Any]:
    """limits.json: name -> value and meaning."""
    said = docstrings.of_module(limits.__name__).names
    found: dict[str, Any] = {}
    for name, value in vars(limits).items():
        if name.isupper() and name != "KIB" and isinstance(value, int | timedelta):
            text = {"description": said[name]} if name in said else {}
            found[name.lower()] = {"value": msgspec.to_builtins(value)} | text
    return {"description": LIMITS_TEXT, "limits": dict(sorted(found.items()))}


def _row(kind: str, meaning: str, fix: str, disposition: str, *, name: str = "") -> dict[str, str]:
    row = {"kind": kind, "name": name, "meaning": meaning, "fix": fix, "disposition": disposition}
    return {key: value for key, value in row.items() if value}
