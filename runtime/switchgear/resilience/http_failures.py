"""What the errors of HTTP clients mean: by status, header and the names of types, so that none is imported. Pure."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, cast

from switchgear.resilience.classes import Verdict

_LIBRARIES = frozenset(
    {"aiohttp", "http", "httpcore", "httpx", "httpx2", "requests", "urllib", "urllib3"}
)
_HARMLESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods without an effect: whether one of them took place is no matter."""

_AUTH = Verdict("auth", retryable=False, fix="check the credentials, and what they may do")
_CERTIFICATE = _AUTH._replace(fix="trust the server's certificate authority")
_INVALID = Verdict(
    "invalid", retryable=False, fix="correct the request: the server will refuse it again"
)
_DOWN = Verdict("transient")
_CUT = Verdict("transient", outcome_known=False)
_LATE = Verdict("timeout", outcome_known=False)
_BUSY = Verdict("rate-limited")
_BUG = Verdict("bug", retryable=False)

_BY_STATUS: dict[int, Verdict] = {
    401: _AUTH,
    402: _AUTH,
    403: _AUTH,
    407: _AUTH,
    511: _AUTH,
    408: Verdict("timeout"),  # the server waited for the request: it did not begin
    409: Verdict("step", fix="the resource was in another state: read it again"),
    412: Verdict("step", fix="the resource was in another state: read it again"),
    423: _DOWN,
    425: _DOWN,
    429: _BUSY,
    500: Verdict("transient"),  # the server says that it failed
    501: _INVALID,
    502: _CUT,  # a gateway does not know what became of it behind
    503: _DOWN,
    504: _LATE,
    505: _INVALID,
    507: Verdict("resource"),
    520: _CUT,
    521: _DOWN,
    522: Verdict("timeout"),
    523: _DOWN,
    524: _LATE,
    529: _BUSY,
}

_BY_TYPE: dict[str, Verdict] = {
    # before anything was sent
    "ConnectError": _DOWN,
    "ConnectTimeout": Verdict("timeout"),
    "ConnectTimeoutError": Verdict("timeout"),
    "ConnectionTimeoutError": Verdict("timeout"),
    "PoolTimeout": Verdict("timeout", fix="use fewer requests at a time, or a larger pool"),
    "NewConnectionError": _DOWN,
    "NameResolutionError": _DOWN._replace(dependency="dns"),
    "ClientConnectorDNSError": _DOWN._replace(dependency="dns"),
    "ClientConnectorCertificateError": _CERTIFICATE,
    "ClientConnectorError": _DOWN,
    "ProxyError": _DOWN,
    "SSLError": _DOWN,
    "ClientProxyConnectionError": _DOWN,
    # what can never be sent
    "InvalidURL": _INVALID,
    "MissingSchema": _INVALID,
    "InvalidSchema": _INVALID,
    "UnsupportedProtocol": _INVALID,
    "LocationParseError": _INVALID,
    "TooManyRedirects": _INVALID,
    "LocalProtocolError": _BUG,
    "StreamConsumed": _BUG,
    "ResponseNotRead": _BUG,
    # after it was sent, or nobody knows
    "TimeoutException": _LATE,
    "ReadTimeoutError": _LATE,
    "ServerTimeoutError": _LATE,
    "Timeout": _LATE,
    "TransportError": _CUT,
    "ProtocolError": _CUT,
    "ClientConnectionError": _CUT,
    "ClientPayloadError": _CUT,
    "ConnectionError": _CUT,
    "ChunkedEncodingError": _CUT,
    "DecodingError": _CUT,
    "ContentDecodingError": _CUT,
    "HTTPException": _CUT,
    "URLError": _CUT,
}
"""By the nearest ancestor of this name: `ReadTimeout` is a `TimeoutException`, `ReadError` a `TransportError`."""


def http_verdict(error: BaseException, now: datetime | None = None) -> Verdict | None:
    """What an error of an HTTP client means; None for another kind of error.

    `now` dates a Retry-After that is a date. Any exception with a response, or with a status and headers of its own,
    counts as one of HTTP, whatever library raised it.
    """
    status, headers = _answer(error)
    found = _of_status(status) if status else _of_type(type(error))
    if found is None:
        return None
    if not status:
        found = _closer(found, error)
    method, host = _request(error)
    return found._replace(
        outcome_known=found.outcome_known or method in _HARMLESS,
        dependency=found.dependency or (f"http:{host}" if host else "http"),
        retry_after=None if headers is None else retry_after(headers, now),
    )


def retry_after(headers: Any, now: datetime | None = None) -> float | None:
    """Seconds that a response asks to wait; None where it does not say, or says it by a date and `now` is unknown."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        text = _header(headers, name).strip()
        if text:
            with contextlib.suppress(ValueError):
                return _seconds(float(text) * unit)
    if not text or now is None:
        return None
    from email.utils import parsedate_to_datetime  # slow to import, and rarely wanted

    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())


def _seconds(asked: float) -> float | None:
    return max(0.0, asked) if math.isfinite(asked) else None


def _of_status(status: int) -> Verdict | None:
    found = _BY_STATUS.get(status)
    if found is not None:
        return found
    if status >= 500:  # noqa: PLR2004 - a status code
        return _DOWN
    return _INVALID if status >= 400 else None  # noqa: PLR2004 - as above


@lru_cache(maxsize=512)
def _of_type(kind: type[BaseException]) -> Verdict | None:
    for one in kind.__mro__:
        if one.__module__.partition(".")[0] in _LIBRARIES:
            found = _BY_TYPE.get(one.__name__)
            if found is not None:
                return found
    return None


def _closer(found: Verdict, error: BaseException) -> Verdict:
    """What the error's text and what it wraps tell beyond its type."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return _CERTIFICATE
    return _DOWN if not found.outcome_known and _never_sent(error) else found


def _never_sent(error: BaseException) -> bool:
    """Whether a library that has one name for both (requests, urllib) means that no connection came about."""
    inner: object = error.args[0] if error.args else None
    for _ in range(3):
        found = _of_type(type(inner)) if isinstance(inner, BaseException) else None
        if found is not None and found.outcome_known:
            return True
        if isinstance(inner, ConnectionRefusedError) or type(inner).__name__ == "gaierror":
            return True
        inner = getattr(inner, "reason", None)
    return False


def _answer(error: BaseException) -> tuple[int, Any]:
    """The status and headers of the response that the error is about; 0 and None where there is none."""
    for place in (_attribute(error, "response"), error):
        headers = _attribute(place, "headers") if place is not None else None
        if headers is None:
            continue
        for name in ("status_code", "status", "code"):
            status = _attribute(place, name)
            if isinstance(status, int) and 400 <= status < 600:  # noqa: PLR2004 - status codes
                return int(status), headers
    return 0, None


def _request(error: BaseException) -> tuple[str, str]:
    """Method and host of the request, as far as the error tells."""
    request: Any = None
    for name in ("request", "request_info"):
        request = request or _attribute(error, name)
    request = request or _attribute(_attribute(error, "response"), "request")
    method = str(_attribute(request, "method") or "")
    for place in (request, _attribute(error, "response"), error):
        host = _host(_attribute(place, "url"))
        if host:
            return method.upper(), host
    host, port = _attribute(error, "host"), _attribute(error, "port")
    if not isinstance(host, str):
        return method.upper(), ""
    return method.upper(), f"{host}:{port}" if isinstance(port, int) else host


def _host(url: object) -> str:
    """The host and port of a URL, whatever type has it; without a user's name or password."""
    text = str(url or "")
    _, separator, rest = text.partition("://")
    if not separator:
        return ""
    for end in "/?#":
        rest = rest.partition(end)[0]
    return rest.rpartition("@")[2].lower()[:128]


def _header(headers: Any, name: str) -> str:
    value: object
    try:
        value = headers.get(name)
        if value is None and type(headers) is dict:  # those of libraries know no case
            pairs = cast("Iterable[tuple[object, object]]", headers.items())
            value = next((one for key, one in pairs if str(key).lower() == name), None)
    except Exception:  # noqa: BLE001  # a foreign object may do anything, and a failure must have its class
        return ""
    return "" if value is None else str(value)


def _attribute(place: object, name: str) -> Any:
    """The attribute, or None: properties of foreign objects may raise anything."""
    try:
        return getattr(place, name, None)
    except Exception:  # noqa: BLE001  # as above: httpx raises RuntimeError for a request that is not set
        return None
