"""A bounded memory: what was used last stays, the rest is forgotten."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


def _one(_value: object) -> int:
    return 1


class Recent(Generic[K, V]):
    """Values by key, up to a total weight; beyond it those are dropped that were not used for longest."""

    def __init__(self, most: int, weigh: Callable[[V], int] = _one) -> None:
        self._most = most
        self._weigh = weigh
        self._kept: OrderedDict[K, V] = OrderedDict()
        self._weight = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: K) -> V | None:
        """The value; None where there is none (any more)."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, key: K, value: V) -> None:
        """Keep it; one that is heavier than all may be is not kept."""
        self.drop(key)
        self._kept[key] = value
        self._weight += self._weigh(value)
        while self._weight > self._most:
            _, oldest = self._kept.popitem(last=False)
            self._weight -= self._weigh(oldest)

    def drop(self, key: K) -> None:
        """Forget it."""
        known = self._kept.pop(key, None)
        if known is not None:
            self._weight -= self._weigh(known)

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
        self._weight = 0
