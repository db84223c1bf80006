"""Checks inputs against announced schemas, each compiled once."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

import jsonschema_rs
import msgspec

from switchgear.contract.announcement import Offer
from switchgear.lifecycle.admission import Misfit

log = logging.getLogger(__name__)


@lru_cache(maxsize=512)
def _compiled(digest: str, schema: bytes) -> Any:
    del digest  # part of the key only: who lies about it must not share another's entry
    return jsonschema_rs.validator_for(schema.decode(), retriever=_no_remote)


_by_offer: dict[int, tuple[Offer, Any]] = {}
_KEPT = 1024


def _validator(offer: Offer) -> Any:
    known = _by_offer.get(id(offer))
    if known is not None and known[0] is offer:
        return known[1]
    try:
        validator = _compiled(offer.input_digest, msgspec.json.encode(offer.input_schema))
    except Exception as error:  # noqa: BLE001  # whatever a foreign schema makes the validator raise
        log.warning("coordinator.schema-unusable %s: %s", offer.name, error)
        validator = None
    if len(_by_offer) >= _KEPT:
        _by_offer.clear()
    _by_offer[id(offer)] = (offer, validator)
    return validator


def check(offer: Offer, data: bytes) -> Misfit | None:
    """Where the input's JSON does not fit the offer's schema; None where it does.

    A schema that cannot be compiled checks nothing: the agent checks its input again.
    """
    validator = _validator(offer)
    if validator is None:
        return None
    try:
        instance = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Misfit("$", f"not JSON: {error}")
    try:
        if validator.is_valid(instance):
            return None
        error = next(iter(validator.iter_errors(instance)))
    except ValueError as beyond:
        return Misfit("$", f"cannot be checked: {beyond}")
    path = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path
    )
    return Misfit(f"${path}", str(error.message)[:500])


def _no_remote(uri: str) -> Any:
    """A schema refers to itself only: an announcement must not make a coordinator fetch anything."""
    raise ValueError(f"{uri} is not part of the schema")
