"""The order of steps: what each needs, cycles, levels. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Needs = Mapping[str, Sequence[str]]
"""Steps in the order of the file, and what each needs; names that are no step are ignored."""


def order(needs: Needs) -> list[str]:
    """Steps so that each comes after what it needs, else as in the file; those on a cycle are left out."""
    left = {name: {one for one in wanted if one in needs} for name, wanted in needs.items()}
    found: list[str] = []
    while True:
        ready = next((name for name, wanted in left.items() if not wanted), None)
        if ready is None:
            return found
        found.append(ready)
        del left[ready]
        for wanted in left.values():
            wanted.discard(ready)


def cycle(needs: Needs) -> list[str]:
    """One cycle as a path whose first step comes again at its end; empty where there is none."""
    rest = set(needs) - set(order(needs))
    for start in (name for name in needs if name in rest):
        path = [start]
        while True:
            # Each step that is left over waits for another one of them.
            after = next(one for one in needs[path[-1]] if one in rest)
            if after in path:
                return [*path[path.index(after) :], after]
            path.append(after)
    return []


def above(needs: Needs, name: str) -> set[str]:
    """All that a step needs, and what that needs in turn."""
    found: set[str] = set()
    todo = [one for one in needs.get(name, ()) if one in needs]
    while todo:
        one = todo.pop()
        if one not in found:
            found.add(one)
            todo.extend(other for other in needs[one] if other in needs)
    return found
