"""How long it takes to say what a failure is: by kinds of exceptions, the fastest of many small windows."""

import time
from collections.abc import Callable
from statistics import median

from benchmarks.results import Results
from switchgear.errors import StepFailed
from switchgear.resilience.classify import classify

CALLS = 500
"""In one window."""


class Response:
    """As HTTP clients have it."""

    status_code = 429
    headers: dict[str, str] = {"retry-after": "3"}  # noqa: RUF012 - nobody writes to it
    url = "https://api.example.com/v1/items?page=7"


class HTTPStatusError(Exception):
    """As httpx raises it."""

    response = Response()


def failures() -> dict[str, BaseException]:
    """What fails, by kind."""
    return {
        "plain": ValueError("row 7 of '12' failed in /tmp/run-31/report.txt"),
        "system": OSError(28, "No space left on device", "/var/lib/data"),
        "timeout": TimeoutError(),
        "http": HTTPStatusError(
            "Client error '429 Too Many Requests' for url 'https://api.example.com/v1/items?page=7'"
        ),
        "step": StepFailed(
            "step build ended with exit code 3",
            key="build",
            exit_code=3,
            stderr="error: " * 1000,
            why="error: " * 300,
        ),
    }


def measure(results: Results, *, rounds: int) -> None:
    """Fill in microseconds a failure: the median of the kinds, and the slowest kind."""
    found = [_us(error, rounds * 20) for error in failures().values()]
    results.classify_us = median(found)
    results.classify_slowest_us = max(found)


def _us(error: BaseException, windows: int) -> float:
    def once() -> object:
        return classify(error, step="build")

    return min(_window(once) for _ in range(windows)) * 1e6


def _window(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - began) / CALLS
