"""What the errors of NATS clients mean, by the names of their types: nothing here imports one. Pure."""

from __future__ import annotations

from switchgear.resilience.classes import Verdict

NATS = "nats"
"""The dependency that these failures speak against."""

_DOWN = Verdict("transient", dependency=NATS)
_CUT = Verdict("transient", outcome_known=False, dependency=NATS)
_LATE = Verdict("timeout", outcome_known=False, dependency=NATS)
_AUTH = Verdict("auth", retryable=False, dependency=NATS, fix="check the broker's credentials")
_TLS = Verdict(
    "invalid", retryable=False, fix="use tls:// where the server wants it, and only there"
)
_WRONG = Verdict("invalid", retryable=False)
_BUG = Verdict("bug", retryable=False)
_ABSENT = Verdict("step")
_FULL = Verdict(
    "resource", dependency=NATS, fix="give the stream, or the server's store, more room"
)

BY_TYPE: dict[str, Verdict] = {
    "NoRespondersError": _DOWN,
    "NoServersError": _DOWN,
    "NoStreamResponseError": _DOWN,
    "ServerNotInPoolError": _WRONG,
    "ConnectionClosedError": _DOWN,
    "ConnectionDrainingError": _DOWN,
    "ConnectionReconnectingError": _DOWN,
    "OutboundBufferLimitError": _DOWN,
    "ServiceUnavailableError": _DOWN,
    "StaleConnectionError": _CUT,
    "UnexpectedEOF": _CUT,
    "FlushTimeoutError": _LATE,
    "DrainTimeoutError": _LATE,
    "TimeoutError": _LATE,
    "FetchTimeoutError": Verdict("timeout", dependency=NATS),
    "AuthorizationError": _AUTH,
    "InvalidUserCredentialsError": _AUTH,
    "SecureConnRequiredError": _TLS,
    "SecureConnWantedError": _TLS,
    "SecureConnFailedError": Verdict("transient", dependency=NATS),
    "MaxPayloadError": Verdict("invalid", retryable=False, fix="send less, or store it as a blob"),
    "BadSubjectError": _WRONG,
    "BadHeaderError": _WRONG,
    "JsonParseError": _WRONG,
    "InvalidCallbackTypeError": _BUG,
    "NotJSMessageError": _BUG,
    "MsgAlreadyAckdError": _BUG,
    "BadSubscriptionError": _BUG,
    "BadTimeoutError": _BUG,
    "SlowConsumerError": Verdict("resource", dependency=NATS, fix="handle messages faster"),
    "TooManyStalledMsgsError": Verdict("resource", dependency=NATS, fix="ack faster"),
    "KeyWrongLastSequenceError": _ABSENT,
    "KeyNotFoundError": _ABSENT,
    "KeyDeletedError": _ABSENT,
    "NoKeysError": _ABSENT,
    "ObjectNotFoundError": _ABSENT,
    "ObjectDeletedError": _ABSENT,
    "ObjectAlreadyExists": _ABSENT,
    "DigestMismatchError": _CUT,
}
_FULL_CODES = frozenset({10023, 10028, 10047, 10077})
"""JetStream's codes for want of memory, storage or room in a stream."""
_REFUSED_CODES = frozenset({10071, 10164})
"""JetStream's codes of a compare-and-set that lost."""
_BY_STATUS: dict[int, Verdict] = {
    400: _WRONG,
    401: _AUTH,
    403: _AUTH,
    404: _ABSENT,
    408: Verdict("timeout", dependency=NATS),
    409: _DOWN,
    429: Verdict("rate-limited", dependency=NATS),
}


def nats_verdict(error: BaseException) -> Verdict | None:
    """What an error of a NATS client means; None for one of another library.

    A request that was not answered has an unknown outcome; one that found nobody has not.
    """
    if not type(error).__module__.startswith("nats."):
        return None
    code = getattr(error, "err_code", None)
    if code in _FULL_CODES:
        return _FULL
    if code in _REFUSED_CODES:
        return _ABSENT
    for kind in type(error).__mro__:
        found = BY_TYPE.get(kind.__name__) if kind.__module__.startswith("nats.") else None
        if found is not None:
            return found
    return _BY_STATUS.get(getattr(error, "code", None) or 0, _DOWN)
