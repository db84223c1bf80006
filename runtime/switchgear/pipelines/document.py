"""A file's values, and the place of each: what makes errors precise to the line and column. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

from switchgear.pipelines.faults import PipelineFault

MAX_FAULTS = 100

Path = tuple[str | int, ...]
"""Where a value stands: keys of tables and indices of lists, from the top."""


class Place(NamedTuple):
    """A character of a file: line and column, both from 1."""

    line: int
    column: int


class Span(NamedTuple):
    """A part of the text, by offsets."""

    start: int
    end: int


class Document:
    """One file: its text, its values, and where keys and values stand."""

    def __init__(
        self,
        file: str,
        text: str,
        value: Any,
        keys: dict[Path, int],
        spans: dict[Path, Span],
        *,
        faults: Sequence[PipelineFault] = (),
    ) -> None:
        """`faults`: what the reader found wrong, and left out of the values."""
        self.file = file
        self.text = text
        self.value = value
        self.faults = tuple(faults)
        self._keys = keys
        self._spans = spans
        self._lines = line_starts(text)

    def key(self, path: Path) -> Place:
        """Where the key stands; of something without one, where its value or its parent does."""
        while path:
            if path in self._keys:
                return place(self._lines, self._keys[path])
            if path in self._spans:
                return place(self._lines, self._spans[path].start)
            path = path[:-1]
        return Place(1, 1)

    def at(self, path: Path) -> Place:
        """Where the value begins."""
        span = self._spans.get(path)
        return self.key(path) if span is None else place(self._lines, span.start)

    def knows(self, path: Path) -> bool:
        """Whether a value stands there."""
        return path in self._spans

    def raw(self, path: Path) -> str:
        """The value as it is written; empty for one without a place."""
        span = self._spans.get(path)
        return "" if span is None else self.text[span.start : span.end]

    def inside(self, path: Path, value: str, offset: int) -> Place:
        """Where a character of a text value stands; where escapes hide it, its line or the value's begin."""
        span = self._spans.get(path)
        if span is None:
            return self.key(path)
        raw = self.text[span.start : span.end]
        whole = raw.find(value)
        if whole >= 0:
            return place(self._lines, span.start + whole + offset)
        # Of a block: its lines stand as they are, but indented.
        begin = value.rfind("\n", 0, offset) + 1
        line = value[begin:].partition("\n")[0]
        same = value[:begin].split("\n").count(line)
        found = -1
        for _ in range(same + 1):
            found = raw.find(line, found + 1)
        if found < 0 or not line.strip():
            return place(self._lines, span.start)
        return place(self._lines, span.start + found + offset - begin)


class Faults:
    """What is wrong with one document, in the order of its lines."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self._found: list[PipelineFault] = list(document.faults)

    def key(self, path: Path, code: str, what: str, *, why: str = "", fix: str = "") -> None:
        """A fault of a key."""
        self.add(self.document.key(path), code, what, why=why, fix=fix)

    def value(self, path: Path, code: str, what: str, *, why: str = "", fix: str = "") -> None:
        """A fault of a value."""
        self.add(self.document.at(path), code, what, why=why, fix=fix)

    def add(self, place: Place, code: str, what: str, *, why: str = "", fix: str = "") -> None:
        """A fault of this place; said twice it counts once. After the first hundred nobody reads on."""
        fault = PipelineFault(self.document.file, *place, code, what, why, fix)
        if len(self._found) < MAX_FAULTS and fault not in self._found:
            self._found.append(fault)

    def __len__(self) -> int:
        return len(self._found)

    @property
    def found(self) -> list[PipelineFault]:
        """All of them, by place."""
        return sorted(self._found, key=lambda fault: (fault.line, fault.column))


def line_starts(text: str) -> list[int]:
    """The offset of each line's first character."""
    return [0, *(index + 1 for index, char in enumerate(text) if char == "\n")]


def place(starts: list[int], offset: int) -> Place:
    """The place of an offset."""
    line = bisect_right(starts, offset)
    return Place(line, offset - starts[line - 1] + 1)
