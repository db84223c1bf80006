"""How fast something may happen: a token bucket. Pure; who asks tells the time."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class TokenBucket:
    """Lets `rate` a second pass, and after a rest up to `burst` at once."""

    rate: float
    burst: float
    _tokens: float = field(init=False)
    _seen: float | None = None

    def __post_init__(self) -> None:
        self._tokens = self.burst

    def take(self, now: float) -> float:
        """Take one, at `now` seconds of a clock that only runs forward. Returns 0, or seconds until there is one."""
        if self._seen is not None:
            earned = max(0.0, now - self._seen) * self.rate
            self._tokens = min(self.burst, self._tokens + earned)
        self._seen = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self.rate

    def is_full(self, now: float) -> bool:
        """Whether it has been at rest for so long that a new one would be the same."""
        if self._seen is None:
            return True
        return self._tokens + max(0.0, now - self._seen) * self.rate >= self.burst
