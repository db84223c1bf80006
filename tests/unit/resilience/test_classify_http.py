"""Errors of HTTP clients, told by what they carry: no client is installed here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchgear.resilience.classify import classify
from switchgear.resilience.http_failures import http_verdict, retry_after

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
URL = "https://user:secret@api.example.com:8443/v1/things?key=secret"


class Thing:
    """A foreign object with these attributes."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


def foreign(name: str, *bases: type[BaseException], module: str = "httpx._exceptions") -> Any:
    """An exception type of a library that is not installed."""
    return type(name, bases or (Exception,), {"__module__": module})


def answered(status: int, method: str = "POST", headers: Any = None) -> BaseException:
    """As httpx and requests tell it: with a response."""
    request = Thing(method=method, url=URL)
    error = foreign("HTTPStatusError")(f"{status} for url")
    error.response = Thing(status_code=status, headers=headers or {}, request=request, url=URL)
    error.request = request
    return error


@pytest.mark.parametrize(
    ("status", "error_class", "retryable", "known"),
    [
        (400, "invalid", False, True),
        (401, "auth", False, True),
        (403, "auth", False, True),
        (404, "invalid", False, True),
        (408, "timeout", True, True),
        (409, "step", True, True),
        (418, "invalid", False, True),
        (425, "transient", True, True),
        (429, "rate-limited", True, True),
        (500, "transient", True, True),
        (501, "invalid", False, True),
        (502, "transient", True, False),
        (503, "transient", True, True),
        (504, "timeout", True, False),
        (507, "resource", True, True),
        (524, "timeout", True, False),
        (529, "rate-limited", True, True),
        (599, "transient", True, True),
    ],
)
def test_the_status_says_what_failed(
    status: int, error_class: str, *, retryable: bool, known: bool
) -> None:
    """A gateway does not know what became of the request behind it; a server that answers does."""
    failure = classify(answered(status))
    assert (failure.error_class, failure.retryable) == (error_class, retryable)
    assert failure.outcome_known is known
    assert failure.dependency == "http:api.example.com:8443"


@pytest.mark.parametrize("method", ["GET", "head", "OPTIONS"])
@pytest.mark.parametrize("status", [502, 504])
def test_a_request_without_effect_has_no_unknown_outcome(method: str, status: int) -> None:
    """Whether it took place is no matter."""
    assert classify(answered(status, method)).outcome_known


TRANSPORT = foreign("TransportError")
TIMEOUT = foreign("TimeoutException", TRANSPORT)
NETWORK = foreign("NetworkError", TRANSPORT)
CLIENT = foreign("ClientError", module="aiohttp.client_exceptions")
CONNECTION = foreign("ClientConnectionError", CLIENT, module="aiohttp.client_exceptions")
REQUESTS = foreign("RequestException", OSError, module="requests.exceptions")
REQUESTS_CONNECTION = foreign("ConnectionError", REQUESTS, module="requests.exceptions")
REQUESTS_TIMEOUT = foreign("Timeout", REQUESTS, module="requests.exceptions")


@pytest.mark.parametrize(
    ("kind", "error_class", "known"),
    [
        (foreign("ConnectError", NETWORK), "transient", True),
        (foreign("ConnectTimeout", TIMEOUT), "timeout", True),
        (foreign("PoolTimeout", TIMEOUT), "timeout", True),
        (foreign("ReadTimeout", TIMEOUT), "timeout", False),
        (foreign("WriteTimeout", TIMEOUT), "timeout", False),
        (foreign("ReadError", NETWORK), "transient", False),
        (foreign("RemoteProtocolError", TRANSPORT), "transient", False),
        (foreign("LocalProtocolError", TRANSPORT), "bug", True),
        (foreign("UnsupportedProtocol", TRANSPORT), "invalid", True),
        (
            foreign("ClientConnectorError", CONNECTION, module="aiohttp.client_exceptions"),
            "transient",
            True,
        ),
        (
            foreign("ServerDisconnectedError", CONNECTION, module="aiohttp.client_exceptions"),
            "transient",
            False,
        ),
        (
            foreign("ServerTimeoutError", CONNECTION, module="aiohttp.client_exceptions"),
            "timeout",
            False,
        ),
        (
            foreign(
                "ConnectTimeout",
                REQUESTS_CONNECTION,
                REQUESTS_TIMEOUT,
                module="requests.exceptions",
            ),
            "timeout",
            True,
        ),
        (
            foreign("ReadTimeout", REQUESTS_TIMEOUT, module="requests.exceptions"),
            "timeout",
            False,
        ),
        (REQUESTS_CONNECTION, "transient", False),
        (
            foreign("IncompleteRead", foreign("HTTPException", module="http.client")),
            "transient",
            False,
        ),
        (foreign("URLError", OSError, module="urllib.error"), "transient", False),
    ],
)
def test_without_an_answer_the_type_says_whether_it_was_sent(
    kind: type[Exception], error_class: str, *, known: bool
) -> None:
    """Before the request was sent the outcome is known; after it, nobody knows."""
    failure = classify(kind("it broke"))
    assert (failure.error_class, failure.outcome_known) == (error_class, known)
    assert failure.dependency == "http"


def test_a_refused_connection_inside_means_that_nothing_was_sent() -> None:
    """Libraries that have one name for both keep the difference inside."""
    new = foreign("NewConnectionError", module="urllib3.exceptions")("refused")
    retries = foreign("MaxRetryError", module="urllib3.exceptions")("max retries")
    retries.reason = new
    aborted = foreign("ProtocolError", module="urllib3.exceptions")("aborted")
    assert classify(REQUESTS_CONNECTION(retries)).outcome_known
    assert not classify(REQUESTS_CONNECTION(aborted)).outcome_known
    url_error = foreign("URLError", OSError, module="urllib.error")
    assert classify(url_error(ConnectionRefusedError(111, "refused"))).outcome_known
    assert not classify(url_error(ConnectionResetError(104, "reset"))).outcome_known


def test_a_certificate_that_is_not_trusted_is_no_matter_of_time() -> None:
    """However the library wraps it."""
    text = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate"
    failure = classify(foreign("ConnectError", NETWORK)(text))
    assert (failure.error_class, failure.retryable) == ("auth", False)
    assert "certificate authority" in failure.fix


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"Retry-After": " 2.5 "}, 2.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "-4"}, 0.0),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Thu, 01 Jan 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30"}, 30.0),
    ],
)
def test_the_server_says_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    """In seconds, in milliseconds, or until a date by the clock that was given."""
    assert retry_after(headers, NOW) == seconds
    assert classify(answered(429, headers=headers), now=NOW).retry_after == seconds


def test_a_date_means_nothing_without_a_clock() -> None:
    assert retry_after({"retry-after": "Thu, 01 Jan 2026 12:00:30 GMT"}) is None


def test_status_and_headers_may_stand_on_the_error_itself() -> None:
    """As with aiohttp and urllib."""
    error = foreign("ClientResponseError", module="aiohttp.client_exceptions")("429")
    error.status, error.headers = 429, {"Retry-After": "7"}
    error.request_info = Thing(method="GET", url=URL)
    failure = classify(error)
    assert (failure.error_class, failure.retry_after) == ("rate-limited", 7)
    assert failure.dependency == "http:api.example.com:8443"
    other = foreign("HTTPError", OSError, module="urllib.error")("404")
    other.code, other.headers, other.url = 404, {}, "http://[::1]:80/x"
    assert classify(other).dependency == "http:[::1]:80"


@pytest.mark.parametrize(("port", "dependency"), [(8080, "http:h:8080"), (None, "http:h")])
def test_an_error_that_only_knows_its_host_names_it(port: int | None, dependency: str) -> None:
    """As that of aiohttp for a connection that did not come about."""
    error = foreign("ClientConnectorError", CONNECTION, module="aiohttp.client_exceptions")("no")
    error.host, error.port = "h", port
    assert classify(error).dependency == dependency


def test_an_error_that_wraps_one_of_http_is_one() -> None:
    """SDKs have errors of their own; `raise … from` keeps the fact."""
    error = foreign("APIError", module="some_sdk")("failed")
    error.__cause__ = answered(429, headers={"retry-after": "5"})
    failure = classify(error)
    assert (failure.error_class, failure.retry_after) == ("rate-limited", 5)


class Hostile(Exception):
    """Raises whatever it is asked."""

    def __getattribute__(self, name: str) -> Any:
        if name in {"response", "headers", "request", "url", "status", "code", "host"}:
            raise RuntimeError(name)
        return super().__getattribute__(name)


def test_properties_that_raise_are_absent() -> None:
    assert classify(Hostile("x")).error_class == "transient"
    error = foreign("ReadTimeout", TIMEOUT, Hostile)("x")
    assert classify(error).dependency == "http"
    bad = answered(429)
    bad.response.headers = Thing(get=None)  # type: ignore[attr-defined]
    assert classify(bad).retry_after is None


@pytest.mark.parametrize("status", [200, 399, 600, True, "503", None])
def test_what_is_no_status_of_an_error_means_nothing(status: object) -> None:
    error = foreign("Odd", module="odd")("x")
    error.response = Thing(status_code=status, headers={})
    assert http_verdict(error) is None


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=30), max_size=4), st.text())
def test_any_header_gives_a_delay_that_is_a_number_or_nothing(
    headers: dict[str, str], text: str
) -> None:
    found = retry_after({**headers, "retry-after": text}, NOW)
    assert found is None or found >= 0
